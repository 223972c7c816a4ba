// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/kernel/debug/mmnf/ID/streams: the walks that are followed over a field.
 *
 * Shows threads and addresses of others, so to root alone.  For people and `mmnf
 * top`, no interface to build upon.  Where there is no debugfs nothing is missed.
 *
 * A line per stream: thread ip position depth ahead dense, then stride:nr of each
 * loop, innermost first; nr 0: no known end.
 */
#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "internal.h"

static struct dentry *mmnf_debugfs_root;

static bool stream_get(struct mmnf_field *field, u32 i, struct mmnf_stream *s)
{
	bool used = false;

	spin_lock(&field->lock);
	if (i < field->table.nr_streams) {
		*s = field->table.stream[i];
		used = s->seen;
	}
	spin_unlock(&field->lock);
	return used;
}

static int streams_show(struct seq_file *to, void *unused)
{
	struct mmnf_level level[MMNF_NR_LEVELS];
	struct mmnf_stream s;
	u32 i, k, nr;

	for (i = 0; i < MMNF_NR_STREAMS; i++) {
		if (!stream_get(to->private, i, &s))
			continue;
		seq_printf(to, "%llu 0x%llx %llu %u %u %d",
			   s.thread & ~MMNF_OUTSIDE, s.ip, s.at.last, s.depth,
			   s.at.ahead, s.dense);
		nr = mmnf_nest_levels(&s.at.nest, level);
		for (k = 0; k < nr; k++)
			seq_printf(to, " %lld:%llu", level[k].stride,
				   level[k].nr == U64_MAX ? 0 : level[k].nr);
		seq_putc(to, '\n');
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(streams);

void mmnf_debugfs_init(void)
{
	mmnf_debugfs_root = debugfs_create_dir("mmnf", NULL);
}

void mmnf_debugfs_exit(void)
{
	debugfs_remove(mmnf_debugfs_root);
}

void mmnf_debugfs_add(struct mmnf_field *field)
{
	char name[24];

	snprintf(name, sizeof(name), "%llu", field->id);
	field->debug = debugfs_create_dir(name, mmnf_debugfs_root);
	debugfs_create_file("streams", 0400, field->debug, field,
			    &streams_fops);
}

/* Waits for those who read. */
void mmnf_debugfs_remove(struct mmnf_field *field)
{
	debugfs_remove(field->debug);
}
