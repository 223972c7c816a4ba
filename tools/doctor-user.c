// SPDX-License-Identifier: MIT
/*
 * mmnf doctor: what a process is allowed, and the libraries it finds.
 */
#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <mmnf.h>

#include "doctor.h"

/* Registered buffers of the queues that the engines use by default. */
#define MEMLOCK_BYTES (64ULL << 20)
#define FILES_LEAST 1024

struct uring_feature {
	int op;
	const char *name;
};

static const struct uring_feature wanted[] = {
	{ IORING_OP_READ, "read" },
	{ IORING_OP_READ_FIXED, "read_fixed" },
	{ IORING_OP_READV, "readv" },
	{ IORING_OP_ASYNC_CANCEL, "async_cancel" },
	{ IORING_OP_URING_CMD, "uring_cmd" },
};

static void uring_refused(struct finding *f, int err)
{
	char text[32];

	first_line("/proc/sys/kernel/io_uring_disabled", text, sizeof(text));
	finding_set(f, FINDING_MISSING, "refused: %s; reads go by pread",
		    strerror(err));
	if (text[0] && text[0] != '0')
		finding_mend(f, "sudo sysctl kernel.io_uring_disabled=0");
	else if (err == ENOMEM)
		finding_mend(f, "ulimit -l unlimited");
}

void doctor_io_uring(struct finding *f)
{
	struct io_uring_probe *probe;
	char absent[200] = "";
	struct io_uring ring;
	size_t i, used = 0;
	int err;

	err = io_uring_queue_init(8, &ring, 0);
	if (err) {
		uring_refused(f, -err);
		return;
	}
	probe = io_uring_get_probe_ring(&ring);
	for (i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		if (probe && !io_uring_opcode_supported(probe, wanted[i].op))
			used += (size_t)snprintf(absent + used,
						 sizeof(absent) - used, " %s",
						 wanted[i].name);
	finding_set(f, FINDING_OK, "works%s%s%s",
		    ring.features & IORING_FEAT_NODROP ?
			    "" :
			    ", may drop completions",
		    absent[0] ? "; without:" : "", absent);
	io_uring_free_probe(probe);
	io_uring_queue_exit(&ring);
}

static void bytes_text(rlim_t bytes, char text[32])
{
	if (bytes == RLIM_INFINITY)
		snprintf(text, 32, "unlimited");
	else
		snprintf(text, 32, "%llu KiB", (unsigned long long)bytes >> 10);
}

void doctor_memlock(struct finding *f)
{
	struct rlimit limit;
	char text[32];

	getrlimit(RLIMIT_MEMLOCK, &limit);
	bytes_text(limit.rlim_cur, text);
	if (limit.rlim_cur >= MEMLOCK_BYTES || !geteuid()) {
		finding_set(f, FINDING_OK, "%s%s", text,
			    geteuid() ? "" : ", and root is not bound by it");
		return;
	}
	finding_set(f, FINDING_MISSING,
		    "%s: io_uring cannot register the buffers of a cache of "
		    "%llu MiB or more, and reads cost a little more",
		    text, MEMLOCK_BYTES >> 20);
	finding_mend(f, limit.rlim_max >= MEMLOCK_BYTES ?
				"ulimit -l unlimited" :
				"echo '* - memlock unlimited' | sudo tee "
				"/etc/security/limits.d/mmnf.conf, and log in "
				"again");
}

void doctor_files(struct finding *f)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur >= FILES_LEAST) {
		finding_set(f, FINDING_OK, "%llu files at once",
			    (unsigned long long)limit.rlim_cur);
		return;
	}
	finding_set(f, FINDING_MISSING,
		    "%llu files at once: expected %d, for windows and queues",
		    (unsigned long long)limit.rlim_cur, FILES_LEAST);
	finding_mend(f, "ulimit -n %d", FILES_LEAST);
}

void doctor_maps(struct finding *f)
{
	unsigned long long nr = 0;
	struct rlimit space;
	char text[32];

	getrlimit(RLIMIT_AS, &space);
	first_line("/proc/sys/vm/max_map_count", text, sizeof(text));
	if (space.rlim_cur != RLIM_INFINITY) {
		finding_set(f, FINDING_MISSING,
			    "address space limited to %llu KiB: large segments "
			    "cannot be mapped",
			    (unsigned long long)space.rlim_cur >> 10);
		finding_mend(f, "ulimit -v unlimited");
	} else if (sscanf(text, "%llu", &nr) == 1 && nr < 4096) {
		finding_set(f, FINDING_MISSING,
			    "%llu mappings at once: a field takes up to 1,024",
			    nr);
		finding_mend(f, "sudo sysctl vm.max_map_count=65530");
	} else {
		finding_set(f, FINDING_OK, "%llu mappings at once", nr);
	}
}

/* Whether the machine has a card, whatever drivers there are. */
static bool has_nvidia_card(void)
{
	char path[64], text[32];
	unsigned int i;

	if (there_is("/dev/nvidiactl"))
		return true;
	for (i = 0; i < 256; i++) {
		snprintf(path, sizeof(path),
			 "/sys/class/drm/card%u/device/vendor", i);
		first_line(path, text, sizeof(text));
		if (!strcmp(text, "0x10de"))
			return true;
	}
	return false;
}

/*
 * The library knows, of any field: this program's own file does, read as bytes.
 */
void doctor_gpu(struct finding *f)
{
	struct mmnf_tiers tiers = { .size = sizeof(tiers) };
	const char *words = "";
	struct mmnf_field *field;
	int err;

	if (mmnf_field_open(&field, "/proc/self/exe#raw,dtype=u8,shape=1",
			    NULL)) {
		finding_set(f, FINDING_MISSING, "%s", mmnf_last_error());
		return;
	}
	err = mmnf_gpu_enable(field, NULL);
	if (err)
		words = mmnf_last_error();
	if (!err && !mmnf_tiers_info(field, &tiers)) {
		finding_set(f, FINDING_OK, "%s", tiers.tier[0].text);
	} else if (!has_nvidia_card()) {
		finding_set(f, FINDING_MISSING,
			    "no NVIDIA GPU in this machine (%s)", words);
	} else {
		finding_set(f, FINDING_MISSING, "a GPU that cannot be used: %s",
			    words);
		finding_mend(f, "sudo apt-get install nvidia-driver");
	}
	mmnf_field_close(field);
}

void doctor_libnbd(struct finding *f)
{
	void *library = dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL), *nbd;
	const char *(*get_version)(void *);
	void (*release)(void *);
	void *(*create)(void);

	if (!library) {
		finding_set(f, FINDING_MISSING,
			    "no libnbd.so.0: no fields on NBD servers");
		finding_mend(f, "sudo apt-get install libnbd0");
		return;
	}
	*(void **)&create = dlsym(library, "nbd_create");
	*(void **)&get_version = dlsym(library, "nbd_get_version");
	*(void **)&release = dlsym(library, "nbd_close");
	nbd = create && get_version && release ? create() : NULL;
	finding_set(f, FINDING_OK, "libnbd %s",
		    nbd ? get_version(nbd) : "of an unknown version");
	if (nbd)
		release(nbd);
	dlclose(library);
}

void doctor_gnuplot(struct finding *f)
{
	char path[512], *rest, *folder;
	char *all = strdup(getenv("PATH") ? getenv("PATH") : "/usr/bin");

	finding_set(f, FINDING_MISSING,
		    "no gnuplot: `mmnf bench --plot` draws with it");
	finding_mend(f, "sudo apt-get install gnuplot-nox");
	for (folder = all ? strtok_r(all, ":", &rest) : NULL; folder;
	     folder = strtok_r(NULL, ":", &rest)) {
		snprintf(path, sizeof(path), "%s/gnuplot", folder);
		if (access(path, X_OK))
			continue;
		finding_set(f, FINDING_OK, "%s", path);
		finding_mend(f, "%s", "");
		break;
	}
	free(all);
}
