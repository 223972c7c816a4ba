/* SPDX-License-Identifier: MIT */
/*
 * f16 and bf16 to and from double, rounding to nearest even.  Header only: the
 * tool uses it, too.
 */
#ifndef MMNF_HALF_H
#define MMNF_HALF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline double mmnf_half_from_bf16(uint16_t h)
{
	uint32_t bits = (uint32_t)h << 16;
	float f;

	memcpy(&f, &bits, 4);
	return f;
}

static inline double mmnf_half_from_f16(uint16_t h)
{
	int exponent = h >> 10 & 31, fraction = h & 1023;
	double v;

	if (exponent == 31)
		v = fraction ? (double)NAN : (double)INFINITY;
	else if (exponent)
		v = (1024 + fraction) / 1024.0 *
		    (exponent >= 15 ? (double)(1 << (exponent - 15)) :
				      1.0 / (1 << (15 - exponent)));
	else
		v = fraction / 1024.0 / 16384.0;
	return h & 0x8000 ? -v : v;
}

/* Finite values beyond the type's range become infinite. */
static inline uint16_t mmnf_half_to_bf16(double v)
{
	float f = (float)v;
	uint32_t bits;

	memcpy(&bits, &f, 4);
	if (f != f)
		return (uint16_t)(bits >> 16 | 0x40);
	bits += 0x7fff + (bits >> 16 & 1);
	return (uint16_t)(bits >> 16);
}

static inline uint16_t mmnf_half_to_f16(double v)
{
	uint16_t sign;
	uint64_t bits, units;
	double m;
	int exponent = 1;

	memcpy(&bits, &v, 8);
	sign = (uint16_t)(bits >> 48 & 0x8000);
	if (v != v)
		return sign | 0x7e00;
	m = v < 0 ? -v : v;
	if (m >= 65520)
		return sign | 0x7c00;
	/* Into units of the last place of its binade: 2^-24 at the lowest. */
	m *= 16777216.0;
	while (m >= 2048) {
		m /= 2;
		exponent++;
	}
	units = (uint64_t)m;
	m -= (double)units;
	if (m > 0.5 || (m == 0.5 && (units & 1)))
		units++;
	if (units < 1024)
		return (uint16_t)(sign | units);
	return (uint16_t)(sign | (((uint64_t)exponent << 10) + units - 1024));
}

#endif
