// SPDX-License-Identifier: MIT
/*
 * mmnf doctor: the kernel, the module and the devices.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/mmnf.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "doctor.h"

#define DEVICE "/dev/mmnf"

/* What the module is made for, as dkms.conf has it. */
#define OLDEST_MAJOR 6
#define OLDEST_MINOR 1
#define NEWEST_MAJOR 7
#define NEWEST_MINOR 3

static const char *release(void)
{
	static struct utsname u;

	uname(&u);
	return u.release;
}

static bool kernel_fits(void)
{
	unsigned int major, minor, version, oldest, newest;

	if (sscanf(release(), "%u.%u", &major, &minor) != 2)
		return false;
	version = major * 1000 + minor;
	oldest = OLDEST_MAJOR * 1000 + OLDEST_MINOR;
	newest = NEWEST_MAJOR * 1000 + NEWEST_MINOR;
	return version >= oldest && version <= newest;
}

void doctor_kernel(struct finding *f)
{
	struct utsname u;

	uname(&u);
	if (strcmp(u.machine, "x86_64"))
		finding_set(f, FINDING_MISSING,
			    "Linux %s on %s: the module is tested on x86_64",
			    u.release, u.machine);
	else if (!kernel_fits())
		finding_set(f, FINDING_MISSING,
			    "Linux %s: the module is made for %d.%d to %d.%d",
			    u.release, OLDEST_MAJOR, OLDEST_MINOR, NEWEST_MAJOR,
			    NEWEST_MINOR);
	else
		finding_set(f, FINDING_OK, "Linux %s", u.release);
	if (f->state != FINDING_OK)
		finding_mend(
			f,
			"sudo apt-get install linux-image-amd64, and boot it");
}

/* Does a list of modules of this kernel have it? */
static bool module_listed(const char *list, const char *module)
{
	char path[300], line[512], wanted[64];
	bool found = false;
	FILE *from;

	snprintf(path, sizeof(path), "/lib/modules/%s/%s", release(), list);
	snprintf(wanted, sizeof(wanted), "/%s.ko", module);
	from = fopen(path, "re");
	if (!from)
		return false;
	while (!found && fgets(line, sizeof(line), from)) {
		char *at = strstr(line, wanted);

		/* In modules.dep others depend on it behind the colon. */
		found = at && (!strchr(line, ':') || at < strchr(line, ':'));
	}
	fclose(from);
	return found;
}

static bool is_builtin(const char *module)
{
	return module_listed("modules.builtin", module);
}

static bool is_installed(const char *module)
{
	return module_listed("modules.dep", module);
}

/* Why a module that is installed may be refused all the same. */
static bool unsigned_is_refused(void)
{
	char text[128];

	first_line("/sys/kernel/security/lockdown", text, sizeof(text));
	if (strstr(text, "[integrity]") || strstr(text, "[confidentiality]"))
		return true;
	first_line("/sys/module/module/parameters/sig_enforce", text,
		   sizeof(text));
	return text[0] == 'Y';
}

void doctor_module(struct finding *f)
{
	char version[64], build[300];

	snprintf(build, sizeof(build), "/lib/modules/%s/build", release());
	if (there_is("/sys/module/mmnf")) {
		first_line("/sys/module/mmnf/version", version,
			   sizeof(version));
		finding_set(f, FINDING_OK, "loaded, version %s", version);
	} else if (!there_is("/proc/modules")) {
		finding_set(
			f, FINDING_MISSING,
			"this kernel cannot load modules; the library works "
			"without, by plain mappings");
	} else if (is_installed("mmnf")) {
		finding_set(f, FINDING_MISSING, "installed, not loaded%s",
			    unsigned_is_refused() ?
				    "; this kernel takes signed modules only" :
				    "");
		if (unsigned_is_refused())
			finding_mend(
				f,
				"sudo mokutil --import /var/lib/dkms/mok.pub, and boot");
		else
			finding_mend(f, "sudo modprobe mmnf");
	} else if (!kernel_fits()) {
		finding_set(f, FINDING_MISSING,
			    "not installed, and not made for this kernel; the "
			    "library works without");
	} else if (!there_is(build)) {
		finding_set(f, FINDING_MISSING,
			    "not installed, and no headers to build it with");
		finding_mend(f, "sudo apt-get install dkms linux-headers-%s",
			     release());
	} else {
		finding_set(f, FINDING_MISSING, "not installed");
		finding_mend(f, "sudo make dkms");
	}
}

void doctor_device(struct finding *f)
{
	struct mmnf_ioc_info info = { .size = sizeof(info) };
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);

	if (fd >= 0 && !ioctl(fd, MMNF_IOC_GET_INFO, &info)) {
		finding_set(f, FINDING_OK,
			    DEVICE " answers; %u walks followed per field",
			    info.out_nr_streams);
	} else if (fd >= 0) {
		finding_set(f, FINDING_MISSING,
			    DEVICE " does not answer as mmnf's: %s",
			    strerror(errno));
		finding_mend(f, "sudo rmmod mmnf; sudo modprobe mmnf");
	} else if (errno == EACCES || errno == EPERM) {
		finding_set(f, FINDING_MISSING, DEVICE " is not for this user");
		if (getgrnam("mmnf"))
			finding_mend(
				f,
				"sudo usermod -aG mmnf $USER, and log in again");
		else
			finding_mend(f, "sudo make install");
	} else {
		finding_set(f, FINDING_MISSING,
			    "no " DEVICE ": the module is not loaded");
		if (is_installed("mmnf"))
			finding_mend(f, "sudo modprobe mmnf");
	}
	if (fd >= 0)
		close(fd);
}

static bool am_member(gid_t wanted)
{
	gid_t groups[1024];
	int nr = getgroups(1024, groups), i;

	for (i = 0; i < nr; i++)
		if (groups[i] == wanted)
			return true;
	return getegid() == wanted;
}

/* The udev rule and its group: who may use the device without being root. */
void doctor_group(struct finding *f)
{
	bool rule = there_is("/etc/udev/rules.d/99-mmnf.rules") ||
		    there_is("/usr/lib/udev/rules.d/99-mmnf.rules") ||
		    there_is("/lib/udev/rules.d/99-mmnf.rules");
	struct group *group = getgrnam("mmnf");

	if (!rule) {
		finding_set(f, FINDING_MISSING,
			    "no udev rule: " DEVICE " is root's alone");
		finding_mend(f, "sudo make install");
	} else if (!group) {
		finding_set(f, FINDING_MISSING,
			    "a udev rule, and no group mmnf for it");
		finding_mend(f, "sudo groupadd --system mmnf");
	} else if (geteuid() && !am_member(group->gr_gid)) {
		finding_set(f, FINDING_MISSING,
			    "group mmnf is there; this user is not in it");
		finding_mend(f,
			     "sudo usermod -aG mmnf $USER, and log in again");
	} else {
		finding_set(f, FINDING_OK, "udev rule for group mmnf");
	}
}

void doctor_nbd(struct finding *f)
{
	char max_part[64];

	if (there_is("/sys/block/nbd0")) {
		first_line("/sys/module/nbd/parameters/nbds_max", max_part,
			   sizeof(max_part));
		finding_set(f, FINDING_OK, "nbd is there, %s devices",
			    max_part[0] ? max_part : "some");
	} else if (is_installed("nbd") || is_builtin("nbd")) {
		finding_set(f, FINDING_MISSING,
			    "nbd is not loaded: no /dev/nbdX to attach");
		finding_mend(f, "sudo modprobe nbd nbds_max=16");
	} else {
		finding_set(f, FINDING_MISSING,
			    "this kernel has no nbd; the library's network "
			    "engine needs none");
	}
}

void doctor_la57(struct finding *f)
{
	char line[4096] = "";
	FILE *from = fopen("/proc/cpuinfo", "re");

	while (from && fgets(line, sizeof(line), from))
		if (!strncmp(line, "flags", 5))
			break;
	if (from)
		fclose(from);
	if (strstr(line, " la57"))
		finding_set(f, FINDING_OK,
			    "57-bit addresses: 64 PiB can be mapped at once");
	else
		finding_set(f, FINDING_NOTE,
			    "47-bit addresses: 128 TiB can be mapped at once; "
			    "larger fields are mapped a segment at a time");
}
