// SPDX-License-Identifier: MIT
/*
 * Batches by way of the GPU tier: every element compared with its closed form,
 * for caches of every size, under 200 schedules of an adversarial fake driver
 * (MMNF_GPU_SEEDS for more), or on a real device with MMNF_TEST_GPU=1.
 */
#include "gpu_flow.h"

TEST(random_batches_on_two_streams_give_every_element)
{
	flow_field();
	for_seeds(random_batches);
	mmnf_field_close(field);
}

TEST(boxes_are_those_of_mmnf_get)
{
	flow_field();
	for_some_seeds(boxes_and_the_host);
	mmnf_field_close(field);
}

TEST_MAIN
