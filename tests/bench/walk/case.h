/* SPDX-License-Identifier: MIT */
/*
 * The cases of the kernel benchmark: which bytes are touched, in which order,
 * in an array of which geometry.
 *
 * Every case is a list of file offsets, made before anything is timed, so that
 * all engines run the same loop and the oracles can be told the whole list.
 */
#ifndef WALK_CASE_H
#define WALK_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096ULL
#define KIB 1024ULL
#define MIB (1024 * KIB)
#define MAX_LEVELS 4
#define MAX_DIMS 4

/* Every 8-byte word at offset o of the data is o * MIX. */
#define MIX 0x9E3779B97F4A7C15ULL

/* The 4-byte value at an offset that is a multiple of 4. */
static inline uint32_t value_at(uint64_t pos)
{
	return (uint32_t)(((pos & ~7ULL) * MIX) >> (pos & 4 ? 32 : 0));
}

struct walk;

enum class {
	CLASS_STRIDED, /* one stride, whole length of the walk */
	CLASS_NEST, /* loops in loops */
	CLASS_GROUP, /* several walks, one after or among the other */
	CLASS_FLAT, /* what stock advice is made for, or nothing can foresee */
	CLASS_HOT, /* resident: no reads at all */
};

enum data {
	DATA_FULL, /* a file written from end to end */
	DATA_SPARSE, /* a huge device of which only touched pages are written */
};

/* Loop levels, innermost first; distances in bytes. */
struct level {
	int64_t stride;
	uint64_t nr;
};

struct bench_case {
	const char *name;
	enum class class;
	enum data data;
	uint32_t ndim;
	uint64_t extent[MAX_DIMS]; /* f32 elements, C order */
	uint64_t record_bytes;
	uint64_t start; /* byte offset of the first touch */
	struct level level[MAX_LEVELS];
	bool reverse; /* the same touches, last first */
	uint32_t nr_threads; /* 0 is read as 1 */
	uint32_t nr_sites; /* load instructions in the loop; 0 is read as 1 */
	uint32_t nr_telling; /* records of a group that tell of all of it; 0: none do */
	/* Instead of levels: */
	void (*list)(struct walk *w);
};

/**
 * struct walk - a case as a list
 * @pos: file offset of each touch, bytes, a multiple of 4
 * @carry: loop that moved on before the touch, where it is not the innermost: its
 *	inner ones have ended; else 0
 * @group: box, array or thread that the touch belongs to
 * @nr: touches; thread t of n has [t * nr / n, (t + 1) * nr / n)
 */
struct walk {
	const struct bench_case *c;
	uint64_t *pos;
	uint8_t *carry;
	uint8_t *group;
	size_t nr, room;
};

extern const struct bench_case bench_cases[];
extern const size_t nr_bench_cases;

extern const uint64_t data_bytes[]; /* of each enum data */

const char *class_name(enum class class);
struct walk walk_of(const struct bench_case *c);

#endif
