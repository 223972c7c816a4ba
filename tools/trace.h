/* SPDX-License-Identifier: MIT */
/*
 * An access trace: who touched which byte of a file, in order, and the geometry of
 * the field that the file holds.
 *
 * As text, a line each; '#' starts a comment.  First what ATTACH would be told, all
 * in bytes and all optional:
 *
 *	file BYTES		size of the file; default: just enough
 *	offset BYTES		where element (0, 0, ...) starts; default 0
 *	element BYTES		of one element; default 1
 *	extent N,N,...		elements along each axis; default: a vector
 *	stride BYTES,BYTES,...	signed distance of neighbours along each axis;
 *				default: packed, last axis fastest
 *	record BYTES		what one access usually needs whole; default 0: unknown
 *
 * then one line per access:
 *
 *	THREAD IP OFFSET_BYTES [GAP_NS]
 *
 * GAP_NS is how long the thread computed since its access before was served;
 * default 0.  Numbers are decimal or 0x...
 */
#ifndef MMNF_TOOL_TRACE_H
#define MMNF_TOOL_TRACE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define TRACE_NDIM_MAX 8
#define PAGE_BYTES 4096ULL

struct trace_access {
	uint64_t thread;
	uint64_t ip;
	uint64_t pos; /* bytes */
	uint64_t gap_ns;
};

/**
 * struct trace_geometry - what ATTACH is told
 * @file_bytes: size of the file
 * @start, @end: the bytes that the elements span, half-open
 */
struct trace_geometry {
	uint64_t file_bytes, offset_bytes, element_bytes, record_bytes;
	uint32_t ndim;
	uint64_t extent[TRACE_NDIM_MAX];
	int64_t stride[TRACE_NDIM_MAX];
	uint64_t start, end;
};

struct trace {
	struct trace_geometry geometry;
	struct trace_access *access;
	uint64_t nr, room;
};

/* Accesses that one trace may have: 32 bytes of memory each. */
#define TRACE_MAX (1ULL << 26)

/**
 * trace_read() - read a trace
 * @wrong: what is wrong and where, if it fails
 * Return: false if it fails; trace_free() is due in any case.
 */
bool trace_read(struct trace *trace, FILE *from, char *wrong, size_t size);

/* Writes what trace_read() reads; errors are left to ferror(). */
void trace_write(const struct trace *trace, FILE *to);
void trace_write_geometry(const struct trace_geometry *geometry, FILE *to);

/* False: out of memory, or TRACE_MAX reached. */
bool trace_add(struct trace *trace, uint64_t thread, uint64_t ip, uint64_t pos,
	       uint64_t gap_ns);

/**
 * trace_geometry_finish() - fill in what was left out, and check
 * @most_pos: largest position touched
 * Return: NULL, or what is wrong.
 */
const char *trace_geometry_finish(struct trace_geometry *geometry,
				  uint64_t most_pos);

void trace_free(struct trace *trace);

#endif
