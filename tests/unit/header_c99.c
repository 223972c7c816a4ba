// SPDX-License-Identifier: MIT
/*
 * mmnf.h in C99 and in later C: each compiler that is here takes the header
 * alone and a program of every macro and inline function, with no warning.
 */
#include "ktap.h"

static const char program[] =
	"#include <mmnf.h>\n"
	"int use(struct mmnf_field *f, const uint64_t *at);\n"
	"int use(struct mmnf_field *f, const uint64_t *at)\n"
	"{\n"
	"	MMNF_OPTS(mmnf_create_opts, create);\n"
	"	MMNF_OPTS(mmnf_open_opts, open);\n"
	"	MMNF_OPTS(mmnf_field_info, info);\n"
	"	const float *p = mmnf_activate(f, at);\n"
	"	struct mmnf_box box = { { 1 }, { 2 }, { -1 } };\n"
	"	return create.size && open.size && info.size && p &&\n"
	"	       mmnf_get(f, &box, 0, 0);\n"
	"}\n";

/* 0, or what the compiler ended with; it speaks for itself on stdout. */
static int compile(const char *compiler, const char *options)
{
	const char *src = getenv("MMNF_SRC");
	char command[512];
	FILE *pipe;

	snprintf(command, sizeof(command),
		 "%s %s -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror "
		 "-I%s/include -fsyntax-only -x c - 2>&1",
		 compiler, options, src ? src : ".");
	pipe = popen(command, "w");
	ASSERT_TRUE(pipe);
	fputs(program, pipe);
	return pclose(pipe);
}

static void check(const char *compiler)
{
	char command[64];

	snprintf(command, sizeof(command), "command -v %s >/dev/null",
		 compiler);
	if (system(command))
		SKIP("no %s", compiler);
	EXPECT_EQ(compile(compiler, "-std=c99"), 0);
	EXPECT_EQ(compile(compiler, "-std=c11"), 0);
	EXPECT_EQ(compile(compiler, "-std=gnu17"), 0);
}

TEST(gcc)
{
	check("gcc");
}

TEST(clang)
{
	check("clang");
}

TEST_MAIN
