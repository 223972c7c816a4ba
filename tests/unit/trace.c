// SPDX-License-Identifier: MIT
/* Traces are read as written, and refused for what is wrong with them. */
#include "ktap.h"

#include "../../tools/trace.c"

static struct trace trace;
static char wrong[256];

static bool read_text(const char *text, size_t len)
{
	FILE *from = fmemopen((void *)text, len, "r");
	bool good;

	ASSERT_TRUE(from);
	good = trace_read(&trace, from, wrong, sizeof(wrong));
	fclose(from);
	return good;
}

static bool reads(const char *text)
{
	return read_text(text, strlen(text));
}

TEST(head_and_accesses)
{
	ASSERT_TRUE(reads("file 0x10000 # bytes\n\n  offset 4096\nelement 8\n"
			  "extent 3,2\nstride -16,8\nrecord 16\n"
			  "7 0x400 5000 250\r\n8 0 4104 # last\n"));
	ASSERT_EQ(trace.nr, 2);
	EXPECT_EQ(trace.access[0].thread, 7);
	EXPECT_EQ(trace.access[0].ip, 0x400);
	EXPECT_EQ(trace.access[0].pos, 5000);
	EXPECT_EQ(trace.access[0].gap_ns, 250);
	EXPECT_EQ(trace.access[1].gap_ns, 0);
	/* Rows go down from 4096: 2 * 16 below it, 8 + 8 above. */
	EXPECT_EQ(trace.geometry.start, 4096 - 32);
	EXPECT_EQ(trace.geometry.end, 4096 + 16);
	EXPECT_EQ(trace.geometry.file_bytes, 65536);
	EXPECT_EQ(trace.geometry.record_bytes, 16);
	trace_free(&trace);
}

TEST(what_is_left_out)
{
	ASSERT_TRUE(reads("0 0 99\n"));
	EXPECT_EQ(trace.geometry.file_bytes, 100);
	EXPECT_EQ(trace.geometry.ndim, 1);
	EXPECT_EQ(trace.geometry.extent[0], 100);
	EXPECT_EQ(trace.geometry.end, 100);
	trace_free(&trace);
	/* Packed: 3 of 4 of 8 bytes. */
	ASSERT_TRUE(reads("element 8\nextent 3,4\n0 0 0\n"));
	EXPECT_EQ(trace.geometry.stride[0], 32);
	EXPECT_EQ(trace.geometry.stride[1], 8);
	EXPECT_EQ(trace.geometry.file_bytes, 96);
	trace_free(&trace);
}

TEST(written_is_read)
{
	const char *text = "file 4096\noffset 96\nelement 4\nextent 10,3,2\n"
			   "stride 24,8,4\nrecord 24\n";
	struct trace again;
	char *out = NULL;
	size_t len = 0;
	uint64_t i;
	FILE *to = open_memstream(&out, &len);

	ASSERT_TRUE(to);
	fputs(text, to);
	for (i = 0; i < 300; i++)
		fprintf(to, "%d 0x%x %d %d\n", (int)i % 7, (int)i,
			(int)(i * 97 % 4096), (int)i * 3);
	fclose(to);
	ASSERT_TRUE(read_text(out, len));
	free(out);
	again = trace;
	to = open_memstream(&out, &len);
	trace_write(&trace, to);
	fclose(to);
	ASSERT_TRUE(read_text(out, len));
	ASSERT_EQ(trace.nr, 300);
	EXPECT_TRUE(!memcmp(trace.access, again.access,
			    300 * sizeof(*trace.access)));
	EXPECT_TRUE(!memcmp(&trace.geometry, &again.geometry,
			    sizeof(trace.geometry)));
	EXPECT_TRUE(!strncmp(out, text, strlen(text)));
	free(out);
	trace_free(&again);
	trace_free(&trace);
}

TEST(long_lines)
{
	char text[4096];

	/* A long comment is one; a long line is no two lines. */
	memset(text, 'x', sizeof(text));
	memcpy(text, "1 1 1 # ", 8);
	memcpy(text + 3000, "\n1 1 2\n", 8);
	ASSERT_TRUE(reads(text));
	EXPECT_EQ(trace.nr, 2);
	trace_free(&trace);
	memset(text, ' ', sizeof(text));
	memcpy(text + 520, "1 1 1\n", 7);
	EXPECT_TRUE(!reads(text));
	EXPECT_STREQ(wrong,
		     "line 1: expected a line of at most 510 characters");
	trace_free(&trace);
	/* Of just that length it is read, with or without its end. */
	memset(text, ' ', sizeof(text));
	memcpy(text + 505, "1 1 1\n", 7);
	EXPECT_TRUE(reads(text));
	trace_free(&trace);
	text[510] = 0;
	EXPECT_TRUE(reads(text));
	EXPECT_EQ(trace.nr, 1);
	trace_free(&trace);
}

/* Anything at all is read or refused, and geometry is never out of bounds. */
TEST(noise)
{
	static const char *const words[] = {
		"file ",      "offset ", "element ",
		"extent ",    "stride ", "record ",
		"1 ",	      "-1 ",	 "0x10 ",
		"4294967296", ",",	 "\n",
		"#",	      "\r\n",	 "9223372036854775807",
		" ",	      "0 0 0\n", "1 2 3 4\n",
		"2,3\n",
	};
	uint64_t state = 1;
	int round, i;

	for (round = 0; round < 20000; round++) {
		char text[512] = "";
		size_t len = 0;

		for (i = 0; i < 16; i++) {
			state = state * 6364136223846793005ULL + 1;
			len += (size_t)snprintf(
				text + len, sizeof(text) - len, "%s",
				words[(state >> 33) %
				      (sizeof(words) / sizeof(words[0]))]);
			if ((state >> 20) % 97 == 0)
				text[len - 1] = (char)(state >> 40);
		}
		if (len && read_text(text, len)) {
			const struct trace_geometry *g = &trace.geometry;

			EXPECT_LE(g->start, g->end);
			EXPECT_LE(g->end, g->file_bytes);
			EXPECT_LE(g->file_bytes, INT64_MAX);
			EXPECT_LE(1, g->ndim);
			for (i = 0; i < (int)trace.nr; i++)
				EXPECT_LT(trace.access[i].pos, g->file_bytes);
		} else {
			EXPECT_LT(0, strlen(wrong));
		}
		trace_free(&trace);
	}
}

TEST_MAIN
