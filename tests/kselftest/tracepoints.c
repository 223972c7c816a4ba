// SPDX-License-Identifier: GPL-2.0
/* The tracepoints: there, silent until asked, and telling the truth. */
#include "util.h"

#define BYTES (8 * MIB)
#define TRACING "/sys/kernel/tracing"

FIXTURE(trace)
{
	int fd, dev;
	struct mmnf_ioc_attach attach;
	char *p;
	char dir[128];
	const char *skip;
};

/* A trace instance of its own: nobody else's events, and none left behind. */
FIXTURE_SETUP(trace)
{
	self->p = MAP_FAILED;
	self->fd = self->dev = -1;
	snprintf(self->dir, sizeof(self->dir), TRACING "/instances/mmnf-%d",
		 getpid());
	if (access(TRACING "/events", F_OK) || mkdir(self->dir, 0700)) {
		self->skip = "kernel: no tracefs";
		return;
	}
	self->fd = make_field(_metadata, "trace", BYTES);
	drop_cache(_metadata, self->fd);
	self->dev = open_device(_metadata);
	self->attach = vector_of(self->fd, BYTES);
	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_ATTACH, &self->attach));
	self->p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
}

FIXTURE_TEARDOWN(trace)
{
	if (self->skip)
		return;
	put_text(self->dir, "events/mmnf/enable", "0");
	munmap(self->p, BYTES);
	close(self->dev);
	close(self->fd);
	remove_field("trace");
	rmdir(self->dir);
}

#define SKIP_WITHOUT_TRACING()                          \
	do {                                            \
		if (self->skip)                         \
			SKIP(return, "%s", self->skip); \
	} while (0)

/*
 * Lines of an event of a field; the last one's text after the event's name goes
 * to @last.
 */
static unsigned int lines(const char *dir, const char *event, u64 id,
			  char *last, size_t size)
{
	char path[256], line[512], key[64];
	unsigned int nr = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/trace", dir);
	snprintf(key, sizeof(key), "%s: field=%llu ", event, id);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		char *at = strstr(line, key);

		if (!at)
			continue;
		nr++;
		at[strcspn(at, "\n")] = 0;
		if (last)
			snprintf(last, size, "%s", at + strlen(key));
	}
	if (f)
		fclose(f);
	return nr;
}

TEST_F(trace, events_exist)
{
	static const char *const names[] = { "mmnf_fault", "mmnf_plan",
					     "mmnf_prefetch" };
	char path[256];
	unsigned int i;

	SKIP_WITHOUT_TRACING();
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), TRACING "/events/mmnf/%s/format",
			 names[i]);
		EXPECT_EQ(0, access(path, F_OK))
		TH_LOG("%s", path);
	}
}

TEST_F(trace, silent_until_enabled)
{
	SKIP_WITHOUT_TRACING();
	EXPECT_EQ(0, walk(self->p, 0, 17 * PAGE, 20, 0));
	EXPECT_EQ(0,
		  lines(self->dir, "mmnf_fault", self->attach.out_id, NULL, 0));
}

TEST_F(trace, one_fault_line_per_counted_fault)
{
	struct mmnf_ioc_stats s;

	SKIP_WITHOUT_TRACING();
	ASSERT_EQ(0, put_text(self->dir, "events/mmnf/mmnf_fault/enable", "1"));
	EXPECT_EQ(0, walk(self->p, 0, 17 * PAGE, 50, 0));
	EXPECT_EQ(0, wrong_words(self->p + 4 * MIB, 4 * MIB, 4 * MIB));
	ASSERT_EQ(0, put_text(self->dir, "events/mmnf/mmnf_fault/enable", "0"));
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(s.out_faults,
		  lines(self->dir, "mmnf_fault", self->attach.out_id, NULL, 0));
}

TEST_F(trace, fault_tells_who_where_and_what)
{
	unsigned long long thread, ip, offset;
	char text[512] = "", outcome[16];
	const u64 pos = 77 * PAGE + 1232;

	SKIP_WITHOUT_TRACING();
	ASSERT_EQ(0, put_text(self->dir, "events/mmnf/mmnf_fault/enable", "1"));
	EXPECT_EQ(word_at(pos), load(self->p + pos));
	EXPECT_EQ(1, lines(self->dir, "mmnf_fault", self->attach.out_id, text,
			   sizeof(text)));
	ASSERT_EQ(4,
		  sscanf(text, "thread=%llu ip=0x%llx offset_bytes=%llu %15s",
			 &thread, &ip, &offset, outcome))
	TH_LOG("'%s'", text);
	EXPECT_EQ((u64)getpid(), thread);
	EXPECT_EQ(pos, offset);
	EXPECT_STREQ("miss", outcome);
	/* The instruction is one of this program's. */
	EXPECT_GT(16 * MIB,
		  ip > (u64)&lines ? ip - (u64)&lines : (u64)&lines - ip);
	/* Resident and unmapped again, the same touch is a hit. */
	ASSERT_EQ(0, madvise(self->p, BYTES, MADV_DONTNEED));
	EXPECT_EQ(word_at(pos), load(self->p + pos));
	EXPECT_EQ(2, lines(self->dir, "mmnf_fault", self->attach.out_id, text,
			   sizeof(text)));
	EXPECT_NE(NULL, strstr(text, " hit"));
}

TEST_F(trace, plans_and_reads_add_up)
{
	char path[256], line[512], key[64];
	u64 read = 0, outside = 0;
	struct mmnf_ioc_stats s;
	FILE *f;

	SKIP_WITHOUT_TRACING();
	ASSERT_EQ(0, put_text(self->dir, "events/mmnf/enable", "1"));
	EXPECT_EQ(0, walk(self->p, 0, 17 * PAGE, 100, 2));
	sleep_ms(50);
	s = get_stats(_metadata, self->dev);
	EXPECT_LT(0, s.out_plans);
	EXPECT_EQ(s.out_plans,
		  lines(self->dir, "mmnf_plan", self->attach.out_id, NULL, 0));
	snprintf(path, sizeof(path), "%s/trace", self->dir);
	snprintf(key, sizeof(key), "mmnf_prefetch: field=%llu ",
		 self->attach.out_id);
	f = fopen(path, "r");
	ASSERT_NE(NULL, f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long long first, nr;
		char *at = strstr(line, key), by[16];

		if (!at)
			continue;
		EXPECT_EQ(3, sscanf(at + strlen(key),
				    "first_page=%llu nr_pages=%llu %15s",
				    &first, &nr, by));
		/* The page of a miss may be read by the worker: not ahead. */
		read += strcmp(by, "predicted") ? 0 : nr;
		/* The walk touches every 17th page and nothing else. */
		outside += first % 17 != 0 || nr != 1;
	}
	fclose(f);
	EXPECT_EQ(s.out_prefetched_pages, read);
	EXPECT_EQ(0, outside);
}

MMNF_HARNESS_MAIN
