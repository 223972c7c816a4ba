// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What a table is about: the data, and for walks outside of that the whole file.
 *
 * Never allocates, sleeps, reads a clock or does I/O; there are no loops.
 */
#include "stream.h"

const struct mmnf_limits mmnf_limits_default = {
	.min_depth = 8,
	.max_depth = 256,
	.max_window_bytes = 8 << 20,
	.max_inflight_bytes = 64 << 20,
};

void mmnf_table_init(struct mmnf_table *table, u64 grain, u64 start, u64 end,
		     u64 span)
{
	memset(table, 0, sizeof(*table));
	table->grain = grain;
	table->start = start & ~(grain - 1);
	table->end = end;
	table->origin = start;
	table->span = span ? span : 1;
	table->limits = mmnf_limits_default;
}

void mmnf_table_set_axes(struct mmnf_table *table, const s64 *stride,
			 const u64 *extent, u32 nr)
{
	mmnf_axes_init(&table->axes, table->origin, stride, extent, nr);
	table->guesses = MAX_GUESSES;
	table->onward = MAX_GUESSES;
}

void mmnf_table_set_file(struct mmnf_table *table, u64 end)
{
	table->file_end = end;
}

/* The data are the whole file, of bytes, until it comes back. */
void mmnf_table_go_outside(struct mmnf_table *table, struct mmnf_data *data)
{
	data->start = table->start;
	data->end = table->end;
	data->origin = table->origin;
	data->span = table->span;
	data->nr_axes = table->axes.nr;
	data->nested = table->axes.nested;
	table->start = 0;
	table->end = table->file_end;
	table->origin = 0;
	table->span = 1;
	table->axes.nr = 0;
	table->axes.nested = false;
}

void mmnf_table_come_back(struct mmnf_table *table,
			  const struct mmnf_data *data)
{
	table->start = data->start;
	table->end = data->end;
	table->origin = data->origin;
	table->span = data->span;
	table->axes.nr = data->nr_axes;
	table->axes.nested = data->nested;
}
