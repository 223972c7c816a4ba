/* SPDX-License-Identifier: MIT */
#ifndef MMNF_NUMBER_H
#define MMNF_NUMBER_H

#include <string.h>

/* For strtoull(): decimal, also with zeros in front, or 0x... */
static inline int number_base(const char *text)
{
	text += strspn(text, " +-");
	return text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10;
}

#endif
