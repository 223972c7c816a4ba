// SPDX-License-Identifier: MIT
/*
 * The same of engine net as of all engines, over servers of several kinds; with
 * MMNF_NET_URIS="URI[,GATEWAY...] [URI...]" over those, which are written to.
 */
#define KTAP_TIMEOUT 120
#include "conform.h"
#include "net_util.h"

static const struct layout layouts[] = {
	{ MMNF_U32, 3, { 40, 33, 70 }, 0, 0, NULL },
	{ MMNF_U32, 2, { 600, 1024 }, 0, 0, NULL },
	{ MMNF_U32, 2, { 25, 30000 }, 0, 0, NULL },
	{ MMNF_U32, 1, { 300001 }, 0, 0, NULL },
	{ MMNF_U32, 4, { 3, 9, 14, 50 }, 0, 0, NULL },
};

#define NR_LAYOUTS (sizeof(layouts) / sizeof(layouts[0]))

static const struct way {
	const char *name;
	struct mmnf_open_opts opts;
} ways[] = {
	{ "default", { .engine = MMNF_ENGINE_AUTO } },
	{ "one at a time", { .net_connections = 1, .net_depth = 1 } },
	{ "tiny L2", { .engine = MMNF_ENGINE_NET, .l2_bytes = 1 } },
	{ "small L2, quiet",
	  { .l2_bytes = 1 << 18, .prefetch_off = 1, .net_depth = 7 } },
	{ "once", { .l2_once = 1 } },
	{ "once, tiny L2, quiet",
	  { .l2_once = 1, .l2_bytes = 1, .prefetch_off = 1 } },
	/* With a cache, written through it, so that it stays good. */
	{ "cache", { .net_cache_dir = "cache", .net_cache_bytes = 64 << 20 } },
	{ "cache, tiny L2",
	  { .net_cache_dir = "cache",
	    .net_cache_bytes = 64 << 20,
	    .l2_bytes = 1 } },
	{ "cache, once",
	  { .net_cache_dir = "cache",
	    .net_cache_bytes = 64 << 20,
	    .l2_once = 1 } },
	{ "smallest cache",
	  { .net_cache_dir = "small", .net_cache_bytes = 17 << 20 } },
};

#define NR_WAYS (sizeof(ways) / sizeof(ways[0]))
#define FIRST_CACHED 6U
#define FIRST_SMALL 9U

static const char *tls_dir, *tls_psk;

static struct mmnf_field *open_way(const struct way *way, bool writable)
{
	struct mmnf_open_opts opts = way->opts;
	struct mmnf_field *field;

	opts.size = sizeof(opts);
	opts.writable = writable;
	opts.net_tls_dir = tls_dir;
	opts.net_tls_psk_file = tls_psk;
	opts.net_tls_username = tls_psk ? "tester" : NULL;
	if (mmnf_field_open(&field, "f", &opts))
		ktap_failed("# %s\n", mmnf_last_error());
	ASSERT_EQ(ktap_shared->failures, 0);
	ASSERT_EQ(info_of(field).engine, MMNF_ENGINE_NET);
	ASSERT_EQ(ssd_tier(field).is_on, way->opts.net_cache_dir != NULL);
	return field;
}

static void remove_field(void)
{
	unlink("f/zarr.json");
	rmdir("f");
}

/* Written by one handle, read by others of each kind. */
static void fill(const struct way *way)
{
	struct mmnf_field *field = open_way(way, true);
	struct mmnf_box box = { { 0 }, { 0 }, { 0 } };
	uint64_t i, nr = nr_elements();

	for (i = 0; i < nr; i++)
		out[i] = value(i);
	for (i = 0; i < l->ndim; i++)
		box.count[i] = l->shape[i];
	ASSERT_EQ(mmnf_write(field, &box, out, nr * 4), (ssize_t)(nr * 4));
	ASSERT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
}

/* All layouts; each is written by the first of these ways and read by all. */
static void conform_by(const struct mmnf_create_opts *opts, unsigned int first,
		       unsigned int end)
{
	struct mmnf_field *field;
	unsigned int w;

	for (l = layouts; l < layouts + NR_LAYOUTS; l++) {
		ASSERT_EQ(mmnf_field_create("f", l->dtype, l->ndim, l->shape,
					    opts),
			  0);
		fill(&ways[first]);
		for (w = first; w < end; w++) {
			field = open_way(&ways[w], false);
			check_field(field, 4);
			mmnf_field_close(field);
			if (ktap_shared->failures)
				ktap_failed("# layout %u, %s\n",
					    (unsigned int)(l - layouts),
					    ways[w].name);
			ASSERT_EQ(ktap_shared->failures, 0);
		}
		remove_field();
	}
	l = layouts;
}

static void conform(const char *const *uris, unsigned int nr, uint64_t stripe)
{
	MMNF_OPTS(mmnf_create_opts, opts);

	opts.net = uris;
	opts.nr_net = nr;
	opts.stripe_bytes = stripe;
	conform_by(&opts, 0, FIRST_CACHED);
	conform_by(&opts, FIRST_CACHED, FIRST_SMALL);
	conform_by(&opts, FIRST_SMALL, NR_WAYS);
}

TEST(memory_of_a_petabyte)
{
	const char *uris[1];

	scratch();
	need_servers();
	server_start(0, "memory 1P");
	uris[0] = servers[0].uri;
	conform(uris, 1, 0);
}

TEST(four_servers_in_stripes)
{
	const char *uris[4];
	unsigned int i;

	scratch();
	need_servers();
	for (i = 0; i < 4; i++) {
		server_start(i, "memory 1T");
		uris[i] = servers[i].uri;
	}
	conform(uris, 4, 4096);
}

/* Blocks of 512 bytes at least, and 16 KiB at most. */
TEST(picky_about_blocks)
{
	const char *uris[1];

	scratch();
	need_servers();
	server_start(
		0, "--filter=blocksize-policy memory 1G blocksize-minimum=512 "
		   "blocksize-preferred=4096 blocksize-maximum=16384 "
		   "blocksize-error-policy=error");
	uris[0] = servers[0].uri;
	conform(uris, 1, 0);
}

/* A plugin of nbdkit that says no more than it has to. */
static const char plain_disk[] = "API_VERSION = 2\n"
				 "disk = bytearray(64 << 20)\n"
				 "def open(readonly): return 1\n"
				 "def get_size(h): return len(disk)\n"
				 "def pread(h, buf, offset, flags):\n"
				 "    buf[:] = disk[offset:offset + len(buf)]\n"
				 "def pwrite(h, buf, offset, flags):\n"
				 "    disk[offset:offset + len(buf)] = buf\n"
				 "def flush(h, flags): pass\n";

/* Without FUA; and no two connections that agree. */
TEST(neither_fua_nor_connections)
{
	const char *uris[1];

	scratch();
	need_servers();
	put_file("disk.py", plain_disk, strlen(plain_disk));
	server_start(0, "--filter=fua python disk.py");
	uris[0] = servers[0].uri;
	conform(uris, 1, 0);
}

TEST(two_gateways_to_one_file)
{
	const char *uris[1];
	char uri[200];
	int fd;

	scratch();
	need_servers();
	fd = open("disk", O_RDWR | O_CREAT, 0666);
	ASSERT_EQ(ftruncate(fd, 64 << 20), 0);
	close(fd);
	server_start(0, "file disk");
	server_start(1, "file disk");
	uris[0] = uri;
	snprintf(uri, sizeof(uri), "%s,%s", servers[0].uri, servers[1].uri);
	conform(uris, 1, 0);
}

TEST(tls_by_a_shared_key)
{
	char uri[300], args[400], psk[300];
	const char *uris[1] = { uri };

	scratch();
	need_servers();
	if (!have("psktool"))
		SKIP("no psktool");
	ASSERT_EQ(system("psktool -u tester -p psk >/dev/null 2>&1"), 0);
	snprintf(psk, sizeof(psk), "%s/psk", scratch_path);
	snprintf(args, sizeof(args), "--tls=require --tls-psk=%s memory 1G",
		 psk);
	server_start(0, args);
	snprintf(uri, sizeof(uri), "nbds+unix:///?socket=%s",
		 servers[0].socket);
	tls_psk = psk;
	conform(uris, 1, 0);
}

static void make_certificates(void)
{
	static const char script[] =
		"mkdir pki && cd pki && exec >log 2>&1 && "
		"gen='certtool --ecc --generate-privkey --outfile' && "
		"$gen ca-key.pem && $gen server-key.pem && $gen client-key.pem && "
		"printf 'cn=ca\\nca\\ncert_signing_key\\nexpiration_days=2\\n' >ca.info && "
		"printf 'cn=localhost\\ndns_name=localhost\\ntls_www_server\\n"
		"signing_key\\nencryption_key\\nexpiration_days=2\\n' >server.info && "
		"printf 'cn=client\\ntls_www_client\\nsigning_key\\n"
		"encryption_key\\nexpiration_days=2\\n' >client.info && "
		"certtool --generate-self-signed --load-privkey ca-key.pem "
		"--template ca.info --outfile ca-cert.pem && "
		"for who in server client; do certtool --generate-certificate "
		"--load-ca-certificate ca-cert.pem --load-ca-privkey ca-key.pem "
		"--load-privkey $who-key.pem --template $who.info "
		"--outfile $who-cert.pem || exit 1; done";

	ASSERT_EQ(system(script), 0);
}

TEST(tls_by_certificates)
{
	char uri[300], args[400], dir[300];
	const char *uris[1] = { uri };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	scratch();
	need_servers();
	if (!have("certtool"))
		SKIP("no certtool");
	make_certificates();
	snprintf(dir, sizeof(dir), "%s/pki", scratch_path);
	snprintf(
		args, sizeof(args),
		"--tls=require --tls-certificates=%s --tls-verify-peer memory 1G",
		dir);
	server_start(0, args);
	/* The name in the certificate, by another road. */
	snprintf(uri, sizeof(uri), "nbds+unix://localhost/?socket=%s",
		 servers[0].socket);
	tls_dir = dir;
	conform(uris, 1, 0);
	/* Without TLS it lets nobody in. */
	make_remote("f", MMNF_U32, l->ndim, l->shape, 1, 0);
	EXPECT_LT(mmnf_field_open(&field, "f", &opts), 0);
	EXPECT_TRUE(strstr(mmnf_last_error(), "TLS"));
}

TEST(servers_of_the_environment)
{
	const char *text = getenv("MMNF_NET_URIS"), *uris[SERVERS_MAX];
	char *copy, *word, *rest;
	unsigned int nr = 0;

	if (!text)
		SKIP("no MMNF_NET_URIS");
	scratch();
	copy = strdup(text);
	for (word = strtok_r(copy, " ", &rest); word && nr < SERVERS_MAX;
	     word = strtok_r(NULL, " ", &rest))
		uris[nr++] = word;
	conform(uris, nr, 0);
	free(copy);
}

static void write_and_read(struct mmnf_field *field)
{
	uint64_t i, nr;
	unsigned int n;

	for (n = 0; n < 60; n++) {
		struct mmnf_box box = random_box();

		nr = elements_of(&box);
		ASSERT_GE(mmnf_get(field, &box, out, sizeof(out)), 0);
		for (i = 0; i < nr; i++)
			out[i] = n;
		ASSERT_EQ(mmnf_write(field, &box, out, nr * 4),
			  (ssize_t)(nr * 4));
		memset(out, 0xee, nr * 4);
		ASSERT_EQ(mmnf_get(field, &box, out, nr * 4),
			  (ssize_t)(nr * 4));
		for (i = 0; i < nr; i++)
			ASSERT_EQ(out[i], n);
	}
}

/* What is written through a handle is what it reads, and others after it. */
TEST(writes_are_seen)
{
	static const char *const kinds[] = {
		"memory 1G",
		"--filter=blocksize-policy memory 1G blocksize-minimum=512 "
		"blocksize-error-policy=error",
	};
	struct mmnf_field *field;
	unsigned int i, k;

	scratch();
	need_servers();
	l = &layouts[0];
	for (k = 0; k < 2; k++) {
		for (i = 0; i < 2; i++)
			server_start(i, kinds[k]);
		make_remote("f", l->dtype, l->ndim, l->shape, 2, 4096);
		for (i = 0; i < NR_WAYS; i++) {
			field = open_way(&ways[i], true);
			write_and_read(field);
			EXPECT_EQ(mmnf_field_sync(field), 0);
			EXPECT_GT(server_stats(field, 1).flushes, 0);
			mmnf_field_close(field);
		}
		fill(&ways[0]);
		field = open_way(&ways[0], false);
		check_field(field, 4);
		mmnf_field_close(field);
		remove_field();
		/* The next servers have the same names and other bytes. */
		ASSERT_EQ(system("rm -r cache small"), 0);
		for (i = 0; i < 2; i++)
			server_kill(i);
	}
}

/* Whatever can be opened can be imported, by its folder and by its URI. */
TEST(imported_from_servers)
{
	static const uint64_t shape[2] = { 32, 64 };
	const struct mmnf_box all = { { 0 }, { 32, 64 }, { 1, 1 } };
	static uint32_t data[32 * 64], got[32 * 64];
	MMNF_OPTS(mmnf_array_info, info);
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	char name[512];
	unsigned int i;

	scratch();
	need_servers();
	server_start(0, "memory 1M");
	make_remote("f", MMNF_U32, 2, shape, 1, 0);
	for (i = 0; i < 32 * 64; i++)
		data[i] = i + 1;
	opts.writable = 1;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	ASSERT_EQ(mmnf_write(field, &all, data, sizeof(data)), sizeof(data));
	ASSERT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
	snprintf(name, sizeof(name), "%s#raw,dtype=u32,shape=32x64",
		 servers[0].uri);
	for (i = 0; i < 2; i++) {
		const char *from = i ? name : "f", *to = i ? "b" : "a";

		ASSERT_EQ(mmnf_array_info(from, &info), 0);
		EXPECT_EQ(info.shape[1], 64);
		field = make_field(to, MMNF_U32, 2, shape, 0, NULL);
		EXPECT_EQ(mmnf_import(field, from, NULL, NULL, NULL),
			  sizeof(data));
		EXPECT_EQ(mmnf_get(field, &all, got, sizeof(got)), sizeof(got));
		EXPECT_EQ(memcmp(got, data, sizeof(data)), 0);
		mmnf_field_close(field);
	}
}

TEST_MAIN
