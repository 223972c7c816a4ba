/* SPDX-License-Identifier: MIT */
/*
 * The engines: how the bytes of a walk come to the loop that loads them.
 *
 *	default, madv_random, madv_sequential	plain mappings with that advice
 *	off, mmnf	through /dev/mmnf, without and with prediction
 *	willneed	oracle: a plain mapping; the program itself asks for what
 *			comes 64 reads later, one system call each
 *	willneed-causal	willneed, told what a walk has shown: of a box, whose shape it
 *			knows, and of a record all at the first touch, of a strided
 *			walk its stride and extent at the second; until then it faults
 *	mmnf-told	through /dev/mmnf, told what willneed is told: nothing is
 *			predicted, and one command asks for 32 reads; as many are in
 *			flight
 *	uring		oracle: io_uring, O_DIRECT, 64 reads in flight: the
 *			device's limit, and no mapping at all
 *
 *	watched, watched-willneed	mmnf and willneed once more, asking the
 *			kernel after each touch whether it had to wait: tell stalls,
 *			not times
 *
 * The oracles are told the whole list beforehand, as reads of neighbouring pages.
 * What they do with it is inside the time that is measured.
 */
#ifndef WALK_ENGINE_H
#define WALK_ENGINE_H

#include "case.h"
#include "disk.h"
#include "measure.h"

#define ORACLE_AHEAD 64

/* Touches after which a walk counts as known to who learns it. */
#define WARM_UP 64

struct engine {
	const char *name;
	int advice;
	bool device, off, oracle, causal, told, uring, watched;
};

extern const struct engine engines[];
extern const size_t nr_engines;

/**
 * struct reads - a part of a walk as reads: each page once, neighbours together
 * @read: first page and number of pages, in the order of their first touch
 *	causal: and the touch after which each is known, which may be its own
 * @of_touch: for each touch of the part the read that brings its page, and where
 *	that page is among all pages of the part
 */
struct reads {
	struct read {
		uint64_t page;
		uint32_t nr_pages;
		uint32_t slot;
		uint32_t told_by;
	} * read;
	struct {
		uint32_t read, slot;
	} * of_touch;
	size_t nr, nr_pages;
};

/* What one thread walks: touches [begin, end) of the list. */
struct part {
	const struct walk *walk;
	size_t begin, end;
	struct reads reads;
	uint32_t queue_depth;
	struct sample *sample;
	/* mapping engines */
	const char *map;
	bool oracle, causal, told, watched;
	int device; /* -1, or what is told, and whose counters are read after WARM_UP */
	struct disk disk; /* watched: the one that is read */
	/* uring */
	int fd;
};

struct reads reads_of(const struct walk *w, size_t begin, size_t end,
		      bool causal);

/* The timed loops.  They put a time stamp for each touch into the sample. */
void mapping_walk(struct part *p);
void uring_walk(struct part *p);

#endif
