/* SPDX-License-Identifier: MIT */
/* The image of gather.cu, as cuda-dl.c hands it to the driver. */
	.section .rodata
	.balign	16
	.globl	mmnf_gather_image
	.hidden	mmnf_gather_image
	.type	mmnf_gather_image, @object
mmnf_gather_image:
	.incbin	"gather.fatbin"
	.size	mmnf_gather_image, . - mmnf_gather_image
	.section .note.GNU-stack, "", @progbits
