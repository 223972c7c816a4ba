// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/class/misc/mmnf/fields/ID: one value per file, units in the names.
 *
 * Shows no path, pid or address.  A directory lives exactly as long as its
 * field.  Written up in mmnf.4.
 */
#include <linux/completion.h>
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/sysfs.h>

#include "internal.h"

static struct kobject *mmnf_sysfs_fields;
static DECLARE_COMPLETION(mmnf_sysfs_ready);

static struct mmnf_field *field_of(struct kobject *kobj)
{
	return container_of(kobj, struct mmnf_field, kobj);
}

/* clang-format off */
#define MMNF_VALUE(_name, _fmt, _value)                                    \
	static ssize_t _name##_show(struct kobject *kobj,                  \
				    struct kobj_attribute *attr, char *buf) \
	{                                                                  \
		const struct mmnf_field *field = field_of(kobj);           \
									   \
		return sysfs_emit(buf, _fmt "\n", _value);                 \
	}                                                                  \
	static struct kobj_attribute _name##_attr = __ATTR_RO(_name)
/* clang-format on */

MMNF_VALUE(ndim, "%u", field->geometry.ndim);
MMNF_VALUE(element_bytes, "%u", field->geometry.element_bytes);
MMNF_VALUE(data_offset_bytes, "%llu", field->geometry.data_offset_bytes);
MMNF_VALUE(record_bytes, "%llu", field->geometry.record_bytes);
MMNF_VALUE(writable, "%d", !!(field->file->f_mode & FMODE_WRITE));
MMNF_VALUE(size_bytes, "%llu", field->size_bytes);

static ssize_t shape_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	const struct mmnf_ioc_attach *geometry = &field_of(kobj)->geometry;
	ssize_t len = 0;
	u32 i;

	for (i = 0; i < geometry->ndim; i++)
		len += sysfs_emit_at(buf, len, "%s%llu", i ? " " : "",
				     geometry->extent[i]);
	return len + sysfs_emit_at(buf, len, "\n");
}

static struct kobj_attribute shape_attr = __ATTR_RO(shape);

static ssize_t stride_bytes_show(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	const struct mmnf_ioc_attach *geometry = &field_of(kobj)->geometry;
	ssize_t len = 0;
	u32 i;

	for (i = 0; i < geometry->ndim; i++)
		len += sysfs_emit_at(buf, len, "%s%lld", i ? " " : "",
				     geometry->stride_bytes[i]);
	return len + sysfs_emit_at(buf, len, "\n");
}

static struct kobj_attribute stride_bytes_attr = __ATTR_RO(stride_bytes);

static const char *const mode_names[] = {
	[MMNF_MODE_OFF] = "off",
	[MMNF_MODE_AUTO] = "auto",
	[MMNF_MODE_MANUAL] = "manual",
};

static ssize_t mode_show(struct kobject *kobj, struct kobj_attribute *attr,
			 char *buf)
{
	struct mmnf_ioc_policy policy = {};

	mmnf_field_get_policy(field_of(kobj), &policy);
	return sysfs_emit(buf, "%s\n", mode_names[policy.mode]);
}

static ssize_t mode_store(struct kobject *kobj, struct kobj_attribute *attr,
			  const char *buf, size_t len)
{
	int mode = sysfs_match_string(mode_names, buf);
	struct mmnf_ioc_policy policy = { .mode = mode };
	int ret;

	if (mode < 0)
		return -EINVAL;
	ret = mmnf_field_set_policy(field_of(kobj), &policy);
	return ret ? ret : len;
}

static struct kobj_attribute mode_attr = __ATTR_RW(mode);

/* clang-format off */
/* A limit: zero means "leave" in the ioctl, here it is a wrong value. */
#define MMNF_LIMIT(_name, _kstrto)                                           \
	static ssize_t _name##_show(struct kobject *kobj,                    \
				    struct kobj_attribute *attr, char *buf)  \
	{                                                                    \
		struct mmnf_ioc_policy policy = {};                          \
									     \
		mmnf_field_get_policy(field_of(kobj), &policy);              \
		return sysfs_emit(buf, "%llu\n", (u64)policy._name);         \
	}                                                                    \
	static ssize_t _name##_store(struct kobject *kobj,                   \
				     struct kobj_attribute *attr,            \
				     const char *buf, size_t len)            \
	{                                                                    \
		struct mmnf_ioc_policy policy = { .mode = MMNF_MODE_KEEP };  \
		int ret;                                                     \
									     \
		ret = _kstrto(buf, 0, &policy._name);                        \
		if (!ret && !policy._name)                                   \
			ret = -EINVAL;                                       \
		if (!ret)                                                    \
			ret = mmnf_field_set_policy(field_of(kobj), &policy); \
		return ret ? ret : len;                                      \
	}                                                                    \
	static struct kobj_attribute _name##_attr = __ATTR_RW(_name)
/* clang-format on */

MMNF_LIMIT(min_depth, kstrtou32);
MMNF_LIMIT(max_depth, kstrtou32);
MMNF_LIMIT(max_window_bytes, kstrtou64);
MMNF_LIMIT(max_inflight_bytes, kstrtou64);

static struct attribute *mmnf_field_attrs[] = {
	&ndim_attr.attr,
	&element_bytes_attr.attr,
	&data_offset_bytes_attr.attr,
	&record_bytes_attr.attr,
	&size_bytes_attr.attr,
	&writable_attr.attr,
	&shape_attr.attr,
	&stride_bytes_attr.attr,
	&mode_attr.attr,
	&min_depth_attr.attr,
	&max_depth_attr.attr,
	&max_window_bytes_attr.attr,
	&max_inflight_bytes_attr.attr,
	NULL,
};

static const struct attribute_group mmnf_field_group = {
	.attrs = mmnf_field_attrs,
};

/* clang-format off */
#define MMNF_COUNTER(_name)                                                \
	static ssize_t _name##_show(struct kobject *kobj,                  \
				    struct kobj_attribute *attr, char *buf) \
	{                                                                  \
		struct mmnf_ioc_stats stats = {};                          \
									   \
		mmnf_field_get_stats(field_of(kobj), &stats);              \
		return sysfs_emit(buf, "%llu\n", stats.out_##_name);       \
	}                                                                  \
	static struct kobj_attribute _name##_attr = __ATTR_RO(_name)
/* clang-format on */

MMNF_COUNTER(faults);
MMNF_COUNTER(hits);
MMNF_COUNTER(late);
MMNF_COUNTER(misses);
MMNF_COUNTER(prefetched_pages);
MMNF_COUNTER(used_pages);
MMNF_COUNTER(wasted_pages);
MMNF_COUNTER(pending_pages);
MMNF_COUNTER(plans);
MMNF_COUNTER(dropped_plans);
MMNF_COUNTER(manual_pages);
MMNF_COUNTER(evicted_pages);
MMNF_COUNTER(mappings);

MMNF_VALUE(latency_ns, "%llu", READ_ONCE(field->table.latency_ns));

static ssize_t waits_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	const struct mmnf_field *field = field_of(kobj);
	ssize_t len = 0;
	u32 i;

	for (i = 0; i < MMNF_NR_LENGTHS; i++)
		len += sysfs_emit_at(buf, len, "%s%llu", i ? " " : "",
				     READ_ONCE(field->waits[i]));
	return len + sysfs_emit_at(buf, len, "\n");
}

static struct kobj_attribute waits_attr = __ATTR_RO(waits);

static struct attribute *mmnf_stats_attrs[] = {
	&faults_attr.attr,
	&hits_attr.attr,
	&late_attr.attr,
	&misses_attr.attr,
	&prefetched_pages_attr.attr,
	&used_pages_attr.attr,
	&wasted_pages_attr.attr,
	&pending_pages_attr.attr,
	&plans_attr.attr,
	&dropped_plans_attr.attr,
	&manual_pages_attr.attr,
	&evicted_pages_attr.attr,
	&mappings_attr.attr,
	&latency_ns_attr.attr,
	&waits_attr.attr,
	NULL,
};

static const struct attribute_group mmnf_stats_group = {
	.name = "stats",
	.attrs = mmnf_stats_attrs,
};

static const struct attribute_group *mmnf_field_groups[] = {
	&mmnf_field_group,
	&mmnf_stats_group,
	NULL,
};

static const struct kobj_type mmnf_field_ktype = {
	.release = mmnf_field_release,
	.sysfs_ops = &kobj_sysfs_ops,
	.default_groups = mmnf_field_groups,
};

/*
 * The directory hangs below the device, so the device is there first and can be
 * opened before; ATTACH waits for it.  Never fails: a module that is in use
 * already must not go away again, so without memory ATTACH is what fails.
 */
void mmnf_sysfs_init(struct kobject *parent)
{
	mmnf_sysfs_fields = kobject_create_and_add("fields", parent);
	complete_all(&mmnf_sysfs_ready);
}

void mmnf_sysfs_exit(void)
{
	kobject_put(mmnf_sysfs_fields);
}

int mmnf_sysfs_add(struct mmnf_field *field)
{
	kobject_init(&field->kobj, &mmnf_field_ktype);
	if (wait_for_completion_killable(&mmnf_sysfs_ready))
		return -EINTR;
	if (!mmnf_sysfs_fields)
		return -ENOMEM;
	return kobject_add(&field->kobj, mmnf_sysfs_fields, "%llu", field->id);
}
