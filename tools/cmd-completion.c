// SPDX-License-Identifier: MIT
/*
 * mmnf completion: what a shell needs to complete commands and options, printed
 * from the tables that the program itself goes by.
 */
#include <string.h>

#include "tool.h"

/* Options whose values are a few words. */
static const struct {
	const char *option, *words;
} values[] = {
	{ "dtype", "i8 u8 i16 u16 i32 u32 i64 u64 f16 bf16 f32 f64" },
	{ "engine", "auto device mmap direct net" },
	{ "format", "npy safetensors nrrd nifti fbin raw" },
	{ "prefetch", "on off" },
	{ "predictors", "none mainline lustre leap ipstride mmnf oracle" },
};

#define NR_VALUES (sizeof(values) / sizeof(values[0]))

/* Options whose values are files. */
static bool is_file(const char *option)
{
	return !strcmp(option, "out") || !strcmp(option, "timeline") ||
	       !strcmp(option, "prometheus") || !strncmp(option, "tls-", 4);
}

static const char *words_of(const char *option)
{
	size_t i;

	for (i = 0; i < NR_VALUES; i++)
		if (!strcmp(values[i].option, option))
			return values[i].words;
	return NULL;
}

/* Text inside single quotes of any of the shells. */
static void put_quoted(const char *text)
{
	for (; *text; text++)
		if (*text == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*text);
}

static void print_bash(void)
{
	const struct option_place *o;
	const struct command *c;
	size_t i;

	printf("# bash completion for mmnf\n_mmnf()\n{\n"
	       "\tlocal cur=${COMP_WORDS[COMP_CWORD]} options\n"
	       "\tlocal prev=${COMP_WORDS[COMP_CWORD - 1]}\n\n"
	       "\tCOMPREPLY=()\n\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n"
	       "\t\tCOMPREPLY=($(compgen -W '--help --version");
	for (c = commands; c->name; c++)
		printf(" %s", c->name);
	printf("' -- \"$cur\"))\n\t\treturn\n\tfi\n\tcase $prev in\n");
	for (i = 0; i < NR_VALUES; i++)
		printf("\t--%s)\n\t\tCOMPREPLY=($(compgen -W '%s' -- "
		       "\"$cur\"))\n\t\treturn ;;\n",
		       values[i].option, values[i].words);
	printf("\tesac\n\tcase ${COMP_WORDS[1]} in\n");
	for (c = commands; c->name; c++) {
		printf("\t%s) options='--json --help", c->name);
		for (o = option_places; o->name; o++)
			if (command_takes(c, o->name))
				printf(" --%s", o->name);
		printf("' ;;\n");
	}
	printf("\tesac\n\tcase $cur in\n"
	       "\t-*) COMPREPLY=($(compgen -W \"$options\" -- \"$cur\")) ;;\n"
	       "\t*) COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n"
	       "\tesac\n}\ncomplete -o filenames -F _mmnf mmnf\n");
}

static void print_zsh(void)
{
	const struct option_place *o;
	const struct command *c;

	printf("#compdef mmnf\n\nlocal -a commands\ncommands=(\n");
	for (c = commands; c->name; c++) {
		printf("\t'%s:", c->name);
		put_quoted(c->help);
		printf("'\n");
	}
	printf(")\nif (( CURRENT == 2 )); then\n"
	       "\t_describe command commands\n\treturn\nfi\n"
	       "local command=$words[2]\nshift words\n(( CURRENT-- ))\n"
	       "case $command in\n");
	for (c = commands; c->name; c++) {
		printf("%s)\n\t_arguments '--json' '--help'", c->name);
		for (o = option_places; o->name; o++) {
			const char *words = words_of(o->name);

			if (!command_takes(c, o->name))
				continue;
			printf(" \\\n\t\t'--%s", o->name);
			if (words)
				printf(":%s:(%s)'", o->name, words);
			else if (o->has_value)
				printf(":%s:%s'", o->name,
				       is_file(o->name) ? "_files" : " ");
			else
				printf("'");
		}
		printf(" \\\n\t\t'*:file:_files' ;;\n");
	}
	printf("esac\n");
}

static void print_fish(void)
{
	const struct option_place *o;
	const struct command *c;

	printf("# fish completion for mmnf\n");
	for (c = commands; c->name; c++) {
		printf("complete -c mmnf -n __fish_use_subcommand -f -a %s -d '",
		       c->name);
		put_quoted(c->help);
		printf("'\n");
	}
	for (c = commands; c->name; c++) {
		const char *seen = "__fish_seen_subcommand_from";

		printf("complete -c mmnf -n '%s %s' -l json\n"
		       "complete -c mmnf -n '%s %s' -l help\n",
		       seen, c->name, seen, c->name);
		for (o = option_places; o->name; o++) {
			const char *words = words_of(o->name);

			if (!command_takes(c, o->name))
				continue;
			printf("complete -c mmnf -n '%s %s' -l %s", seen,
			       c->name, o->name);
			if (words)
				printf(" -x -a '%s'", words);
			else if (o->has_value)
				printf(is_file(o->name) ? " -r" : " -x");
			printf("\n");
		}
	}
}

int cmd_completion(const struct options *o)
{
	if (!strcmp(o->args[0], "bash"))
		print_bash();
	else if (!strcmp(o->args[0], "zsh"))
		print_zsh();
	else if (!strcmp(o->args[0], "fish"))
		print_fish();
	else
		return usage_error(o, "%s: expected bash, zsh or fish",
				   o->args[0]);
	return EXIT_SUCCESS;
}
