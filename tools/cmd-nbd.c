// SPDX-License-Identifier: MIT
/*
 * mmnf nbd: network block devices that survive their servers.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "nbd.h"

static json_t *describe(uint32_t index)
{
	pid_t pid = nbd_lock_holder(index);
	char device[32], backend[4096];

	nbd_queue_connected(index, backend, sizeof(backend));
	snprintf(device, sizeof(device), "/dev/nbd%" PRIu32, index);
	return json_pack("{ss sI ss so}", "device", device, "size_bytes",
			 (json_int_t)nbd_queue_size_bytes(index), "backend",
			 backend, "supervisor",
			 pid ? json_integer(pid) : json_null());
}

static int list(const struct options *o)
{
	json_t *devices = json_array(), *device;
	uint32_t *indices = NULL;
	int nr, i;
	size_t at;

	if (o->nr_args != 1)
		return usage_error(o, "list: expected no arguments");
	nr = nbd_queue_all(&indices);
	if (nr < 0)
		return failure(o, "/sys/block: %s", strerror(-nr));
	for (i = 0; i < nr; i++)
		if (nbd_queue_connected(indices[i], NULL, 0))
			json_array_append_new(devices, describe(indices[i]));
	free(indices);
	if (o->json)
		return print_result(o, json_pack("{so}", "devices", devices));
	json_array_foreach(devices, at, device)
	{
		json_t *pid = json_object_get(device, "supervisor");
		char size[16];

		human_bytes((uint64_t)json_integer_value(
				    json_object_get(device, "size_bytes")),
			    size);
		printf("%-12s %10s  %s %" JSON_INTEGER_FORMAT "  %s\n",
		       json_string_value(json_object_get(device, "device")),
		       size, json_is_null(pid) ? "no supervisor" : "supervisor",
		       json_integer_value(pid),
		       json_string_value(json_object_get(device, "backend")));
	}
	json_decref(devices);
	return EXIT_SUCCESS;
}

/* Of a device that is mounted, or part of another one. */
static bool is_claimed(const char *device)
{
	int fd = open(device, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0)
		close(fd);
	return fd < 0 && errno == EBUSY;
}

static int detach(const struct options *o)
{
	const char *device = o->args[o->nr_args - 1];
	struct nbd_kernel *kernel;
	char text[NBD_TEXT];
	uint32_t index;
	int err;

	if (o->nr_args != 2 || !nbd_queue_index(device, &index))
		return usage_error(o, "detach: expected one /dev/nbdN");
	if (!nbd_queue_connected(index, NULL, 0))
		return failure(o, "%s: is not attached", device);
	if (!o->force && is_claimed(device))
		return failure(o,
			       "%s: is mounted or part of another device: "
			       "expected it free, or --force",
			       device);
	if (nbd_kernel_open(&kernel, text))
		return failure(o, "%s", text);
	err = nbd_kernel_disconnect(kernel, index);
	nbd_kernel_close(kernel);
	if (err)
		return failure(o, "%s: %s", device,
			       err == -EPERM ? "not permitted: expected root" :
					       strerror(-err));
	return print_result(o,
			    json_pack("{ss sb}", "device", device, "still_open",
				      nbd_queue_connected(index, NULL, 0)));
}

int cmd_nbd(const struct options *o)
{
	if (!strcmp(o->args[0], "attach"))
		return nbd_attach(o);
	if (!strcmp(o->args[0], "detach"))
		return detach(o);
	if (!strcmp(o->args[0], "list"))
		return list(o);
	return usage_error(o, "%s: expected attach, list or detach",
			   o->args[0]);
}
