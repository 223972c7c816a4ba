/* SPDX-License-Identifier: MIT */
#ifndef MMNF_NEW_FILE_H
#define MMNF_NEW_FILE_H

#include "internal.h"

/**
 * struct mmnf_new_file - a file that gets its name when it is whole
 * @dir: what @path begins at, as for openat()
 * @path: not a copy
 * @temporary: where it is meanwhile; "": nowhere
 */
struct mmnf_new_file {
	int dir, fd;
	const char *path;
	char temporary[4096];
};

/* All return 0 or -errno, without text. */
int mmnf_new_file_open(struct mmnf_new_file *f, int dir, const char *path,
		       unsigned int mode);

/* Where there is nothing yet, else -EEXIST; or in place of what is there, for good. */
int mmnf_new_file_link(struct mmnf_new_file *f);
int mmnf_new_file_replace(struct mmnf_new_file *f);

/* After either; before it, no trace is left. */
void mmnf_new_file_close(struct mmnf_new_file *f);

#endif
