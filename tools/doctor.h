/* SPDX-License-Identifier: MIT */
/*
 * Findings of `mmnf doctor`, between those who look and who prints.
 */
#ifndef MMNF_DOCTOR_H
#define MMNF_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>

enum finding_state {
	FINDING_OK,
	FINDING_MISSING, /* can be had, or this machine has not got it */
	FINDING_NOTE, /* no fault; good to know */
};

/**
 * struct finding - what was seen of one thing
 * @text: what is there, or why not
 * @mend: the one command that brings it; "" where none does
 */
struct finding {
	enum finding_state state;
	char text[400];
	char mend[256];
};

void finding_set(struct finding *f, enum finding_state state,
		 const char *format, ...) __attribute__((format(printf, 3, 4)));
void finding_mend(struct finding *f, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Does a file of the system exist? */
bool there_is(const char *path);
/* Its first line; "" if it cannot be read. */
void first_line(const char *path, char *text, size_t len);

/* doctor-kernel.c */
void doctor_kernel(struct finding *f);
void doctor_module(struct finding *f);
void doctor_device(struct finding *f);
void doctor_group(struct finding *f);
void doctor_nbd(struct finding *f);
void doctor_la57(struct finding *f);

/* doctor-user.c */
void doctor_io_uring(struct finding *f);
void doctor_memlock(struct finding *f);
void doctor_files(struct finding *f);
void doctor_maps(struct finding *f);
void doctor_gpu(struct finding *f);
void doctor_libnbd(struct finding *f);
void doctor_gnuplot(struct finding *f);

/*
 * doctor-fs.c: of the file system at @path, which is made use of by a file
 * without a name.  Each takes the finding of one property.
 */
struct filesystem;
struct filesystem *filesystem_open(const char *path);
void filesystem_close(struct filesystem *fs);
void doctor_fs_type(const struct filesystem *fs, struct finding *f);
void doctor_fs_size(const struct filesystem *fs, struct finding *f);
void doctor_fs_holes(const struct filesystem *fs, struct finding *f);
void doctor_fs_direct(const struct filesystem *fs, struct finding *f);
void doctor_fs_folios(const struct filesystem *fs, struct finding *f);

#endif
