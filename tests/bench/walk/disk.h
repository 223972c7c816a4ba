/* SPDX-License-Identifier: MIT */
/*
 * The disk under a file: how many reads it works at, of as many as it can.
 */
#ifndef WALK_DISK_H
#define WALK_DISK_H

#include <stdbool.h>
#include <stddef.h>

/**
 * struct disk - by sysfs
 * @inflight: its file of that name
 * @nr_slots: requests that it takes at once
 */
struct disk {
	int inflight;
	unsigned int nr_slots;
};

/* @fd: a file on it, or the disk itself; ends the program if it has no queue. */
struct disk disk_of(int fd);

/*
 * Is it as busy as it can be, by a walk that has yet to read @nr_left pages?  Waiters
 * for a slot are woken by eights or so, so a sixteenth of the slots may be free for a
 * moment.
 */
bool disk_is_full(const struct disk *disk, size_t nr_left);

#endif
