/* SPDX-License-Identifier: MIT */
/*
 * libmmnf: a tensor far larger than memory, indexed like memory.
 *
 *	struct mmnf_field *f;
 *	uint64_t at[3] = { 500000, 500000, 0 };
 *
 *	mmnf_field_open(&f, "cortex.zarr", NULL);
 *	const float *p = mmnf_activate(f, at);		p[0] .. p[255]
 *	mmnf_field_close(f);
 *
 * A field is a Zarr v3 array on disk: one directory with zarr.json and one
 * little-endian file per segment, in C order or in tiles (sharding_indexed); what
 * was never written reads as the fill value and takes no space.  Files of other
 * formats are used where they lie: see mmnf_field_open().
 *
 *	axis 0 ->  +-----------+-----------+- - - - - -+-----------+
 *	           | segment 0 | segment 1 |  absent   | segment n |
 *	           +-----------+-----------+- - - - - -+-----------+
 *
 * Return values: 0 (or a count) on success, -errno on failure; the text for
 * humans is in mmnf_last_error().  All functions are thread-safe unless said
 * otherwise; a handle must not be used after its close.  The header stands
 * alone in C99 and C++11 with gcc or clang.
 *
 * In a child of fork() a field of the parent may be read, if no other thread was at it
 * when the parent forked, and closed, which leaves what the parent has written to the
 * parent.  It must not be written or synced there, for that may hang or give up tiles that
 * are the parent's: open the field again, and where the engine is DEVICE or NET always.
 */
#ifndef MMNF_H
#define MMNF_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MMNF_API __attribute__((visibility("default")))

#define MMNF_NDIM_MAX 8

struct mmnf_field;

enum mmnf_dtype {
	MMNF_I8 = 1,
	MMNF_U8,
	MMNF_I16,
	MMNF_U16,
	MMNF_I32,
	MMNF_U32,
	MMNF_I64,
	MMNF_U64,
	MMNF_F16,
	MMNF_BF16,
	MMNF_F32,
	MMNF_F64,
};

/*
 * Which way the bytes come.  AUTO takes DEVICE where /dev/mmnf can be used and
 * MMAP otherwise; mmnf_field_info() tells which and why.
 */
enum mmnf_engine {
	MMNF_ENGINE_AUTO = 0,
	MMNF_ENGINE_DEVICE, /* mapped through /dev/mmnf: the kernel predicts */
	MMNF_ENGINE_MMAP, /* plain mapping: the library predicts */
	MMNF_ENGINE_DIRECT, /* O_DIRECT into the library's own cache, L2 */
	MMNF_ENGINE_NET, /* from NBD servers into L2: fields that lie there */
};

/**
 * mmnf_version() - version of the library, "MAJOR.MINOR.PATCH"
 */
MMNF_API const char *mmnf_version(void);

/**
 * mmnf_last_error() - what the last failed call of this thread said
 *
 * Return: "function: what: expectation"; "" if nothing failed.  Valid until
 * the next failing call of the same thread.
 */
MMNF_API const char *mmnf_last_error(void);

/**
 * mmnf_dtype_bytes() - size of one element
 * Return: 1, 2, 4 or 8; 0 for an unknown type.
 */
MMNF_API unsigned int mmnf_dtype_bytes(enum mmnf_dtype dtype);

/**
 * mmnf_dtype_name() - "f32", "u8", ...; NULL for an unknown type
 */
MMNF_API const char *mmnf_dtype_name(enum mmnf_dtype dtype);

/**
 * mmnf_dtype_parse() - the type of a name as given by mmnf_dtype_name()
 * Return: the type, or -EINVAL.
 */
MMNF_API int mmnf_dtype_parse(const char *name);

/* What leaves L2 when it is full. */
enum mmnf_l2_policy {
	MMNF_L2_DEFAULT_POLICY = 0,
	MMNF_L2_LRU,
	MMNF_L2_SIEVE,
	MMNF_L2_S3FIFO,
};

/* How files are read. */
enum mmnf_uring {
	MMNF_URING_AUTO = 0, /* io_uring, or pread where it is refused */
	MMNF_URING_OFF, /* pread */
	MMNF_URING_SQPOLL, /* io_uring with a kernel thread that polls */
};

/*
 * Options structs: set .size to sizeof, everything else zero is the default;
 * MMNF_OPTS does both.  A tail unknown to this library must be zero
 * (-EOPNOTSUPP), so programs built against a later header fail loudly only if
 * they use what is not there.
 */
#ifdef __cplusplus
#define MMNF_OPTS(type, name)  \
	struct type name = {}; \
	name.size = sizeof(struct type)
#else
#define MMNF_OPTS(type, name) struct type name = { .size = sizeof(struct type) }
#endif

struct mmnf_create_opts {
	size_t size;
	uint64_t segment_bytes; /* most bytes per segment file; 0: 64 GiB, and
				 * 64 MiB where fill is not zero, because such
				 * a segment is written out in full */
	const void *fill; /* one element; NULL: zero */
	const uint64_t *tile; /* elements of a tile along each axis: the field
			       * is stored in tiles; NULL: in C order */
	uint32_t checksums; /* 1: keep a CRC32C of each tile; a write waits for
			     * the disk once if it finds one that it changes */
	uint32_t reserved;
	/*
	 * Data that lies on NBD servers, in C order from byte 0 on: only the
	 * manifest is made here.  Each string is one server,
	 * "URI[,URI...]" where several gateways lead to the same bytes; stripe
	 * i of the data is on server i % nr_net.  URIs: nbd://HOST[:PORT]/EXPORT,
	 * nbd+unix:///EXPORT?socket=PATH, and nbds:// and nbds+unix:// with TLS.
	 */
	const char *const *net;
	uint32_t nr_net;
	uint32_t reserved2;
	uint64_t stripe_bytes; /* a multiple of 4096; 0: 1 MiB */
};

#define MMNF_NET_FOREVER UINT32_MAX

struct mmnf_open_opts {
	size_t size;
	uint32_t engine; /* enum mmnf_engine */
	uint32_t writable; /* 1: mmnf_write() allowed */
	uint32_t max_windows; /* a pointer stays good until so many other
			       * segments were activated; at most twice as many
			       * are mapped.  0: 512, or 16384 with LA57; fewer
			       * where the address space would not hold them */
	uint32_t prefetch_off; /* 1: read nothing ahead by prediction */
	uint32_t uring; /* enum mmnf_uring */
	uint32_t l2_policy; /* enum mmnf_l2_policy; DIRECT */
	uint64_t l2_bytes; /* size of L2 (DIRECT, NET); 0: a sixteenth of
			    * memory, from 64 MiB to 1 GiB */
	uint32_t l2_populate; /* 1: take the memory of L2 at open, not as it
			       * fills: first reads then wait for no memory */
	uint32_t l2_once; /* 1: what a call reads and is not in L2 (DIRECT,
			   * NET) is not kept there, what is read ahead is:
			   * for records that are read once.  Nothing to
			   * DEVICE and MMAP */
	/* NET: */
	uint32_t net_connections; /* to each server, at most 16; 0: 4 */
	uint32_t net_depth; /* requests on each at once; 0: 64 */
	uint32_t net_fail_timeout_ms; /* then a request fails whose server is
				       * away; 0: 30 s; MMNF_NET_FOREVER */
	uint32_t net_request_timeout_ms; /* then a server that does not answer
					  * is asked anew; 0: 5 s */
	const char *net_tls_dir; /* of ca-cert.pem, client-cert.pem and
				  * client-key.pem; NULL: the system's CAs */
	const char *net_tls_psk_file; /* "USER:HEXKEY" lines */
	const char *net_tls_username; /* of those; NULL: the login name */
	const char *net_cache_dir; /* a directory on a local disk: what was
				    * read is kept there from one open to the
				    * next, and what is written survives a
				    * server that crashes.  NULL: none */
	uint64_t net_cache_bytes; /* most of it; 0: 16 GiB */
	uint32_t net_cache_grace_ms; /* how long a write whose connection was
				      * given up may still come, and others of
				      * the same bytes wait, also without a
				      * cache; 0: 30 s */
	uint32_t net_holes_off; /* 1: do not ask servers for their holes */
};

/**
 * mmnf_field_create() - make an empty field
 * @path: directory to make; must not exist
 * @dtype: element type
 * @ndim: 1 .. MMNF_NDIM_MAX
 * @shape: elements along each axis, each at least 1
 * @opts: NULL for defaults
 *
 * Writes metadata only, however large the field is.
 *
 * Return: 0, -EEXIST, -EINVAL, -EOVERFLOW (more than 2^63 - 1 bytes), -ENOSPC,
 * or what the filesystem said.  On failure nothing is left behind.
 */
MMNF_API int mmnf_field_create(const char *path, enum mmnf_dtype dtype,
			       unsigned int ndim, const uint64_t *shape,
			       const struct mmnf_create_opts *opts);

/**
 * mmnf_field_open() - open a field
 * @out: receives the field; NULL on failure
 * @path: directory of an uncompressed Zarr v3 array, regular or sharded; or a
 *	file that is used where it lies:
 *
 *	.npy			C and Fortran order
 *	.safetensors#NAME	tensor of that name; alone: the only one
 *	.gguf#NAME		the same, elements that are not quantised
 *	.nii			NIfTI-1 and -2; axes slowest first, [z][y][x]
 *	.nrrd, .nhdr		encoding raw; axes slowest first
 *	.fbin .u8bin .i8bin .ibin
 *	FILE#raw,dtype=T,shape=NxN...[,offset=N][,order=C|F][,strides=NxN...]
 *				anything, also a block device (/dev/nbd0);
 *				offset and strides in bytes, any sign
 *	URI[,URI...]#raw,...	the same on an NBD server: see
 *				mmnf_create_opts.net
 *
 *	fbin and its kin are told by their name, the others by their content.
 *	A name that has a '#' itself is taken as it is if there is such a file.
 * @opts: NULL for defaults (read-only, AUTO)
 *
 * Costs the same for a gigabyte and a petabyte.  Files other than Zarr arrays
 * keep their size: opened writable, their elements may be written in place.
 *
 * Return: 0, -ENOENT, -EINVAL (manifest or header is wrong; the text says where),
 * -EOPNOTSUPP (a valid store of a kind that is not handled, an unknown option,
 * or DEVICE asked for and not to be had), -ENOMEM.
 */
MMNF_API int mmnf_field_open(struct mmnf_field **out, const char *path,
			     const struct mmnf_open_opts *opts);

/**
 * mmnf_field_close() - unmap and release; NULL is fine, never fails
 *
 * With net_cache_dir, what the servers do not have yet is sent first, for
 * net_fail_timeout_ms, and 30 s at most.  The rest stays in the log there and is
 * sent after the next open for writing with that directory; mmnf_field_sync()
 * tells whether there is any.
 *
 * Without net_cache_dir nobody would know afterwards of a write that was given up and
 * may still come: where there is one, this returns when it can come no more, after
 * net_fail_timeout_ms and net_cache_grace_ms at most, 60 s by default.
 */
MMNF_API void mmnf_field_close(struct mmnf_field *field);

struct mmnf_field_info {
	size_t size; /* set by the caller */
	uint32_t dtype, ndim, engine, element_bytes;
	uint64_t shape[MMNF_NDIM_MAX];
	uint64_t segment_shape[MMNF_NDIM_MAX];
	uint64_t total_bytes; /* product of shape, in bytes */
	uint64_t segment_bytes; /* of one segment file */
	uint64_t nr_segments;
	uint8_t fill[8]; /* one element, little-endian */
	char engine_reason[128]; /* why this engine */
	uint64_t tile_shape[MMNF_NDIM_MAX]; /* segment_shape if not in tiles */
	int64_t stride_bytes[MMNF_NDIM_MAX]; /* inside a tile */
	uint64_t data_offset_bytes; /* of the first tile in a segment's file */
	char format[16]; /* "zarr", "npy", "safetensors", "gguf", "nifti",
			  * "nrrd", "fbin", "raw" */
};

/**
 * mmnf_field_info() - geometry and engine of an open field
 *
 * As much as .size has room for is filled in.
 *
 * Return: 0, -EINVAL if .size is wrong.
 */
MMNF_API int mmnf_field_info(const struct mmnf_field *field,
			     struct mmnf_field_info *info);

/**
 * struct mmnf_box - elements start + i * step, 0 <= i < count, along each axis
 * @start: coordinates of the first element
 * @count: elements along each axis; 0 makes the box empty
 * @step: signed distance along each axis; 0 is read as 1
 *
 * numpy's f[a:b:s] is start = a, step = s, count = ceil((b - a) / s).
 */
struct mmnf_box {
	uint64_t start[MMNF_NDIM_MAX];
	uint64_t count[MMNF_NDIM_MAX];
	int64_t step[MMNF_NDIM_MAX];
};

/**
 * mmnf_get() - copy a box out
 * @dst: receives the elements in C order, packed
 * @dst_bytes: room there; must be at least the box
 *
 * Errors of the file below come back as -errno, never as a signal.
 *
 * Return: bytes copied, -ERANGE (box leaves the field), -ENOSPC (@dst is too
 * small), -EIO and other errors of the storage.
 */
MMNF_API ssize_t mmnf_get(struct mmnf_field *field, const struct mmnf_box *box,
			  void *dst, size_t dst_bytes);

/**
 * mmnf_batch_get() - copy many records out
 * @index: @nr_index indices along axis 0; any order, repeats allowed
 * @dst: receives field[index[i]] packed, i ascending
 *
 * Reads are started in file order for the whole list before the first copy.
 *
 * Return: bytes copied, or as mmnf_get().
 */
MMNF_API ssize_t mmnf_batch_get(struct mmnf_field *field, const uint64_t *index,
				size_t nr_index, void *dst, size_t dst_bytes);

/**
 * mmnf_batch_get_boxes() - copy many boxes out
 * @box: @nr boxes; they may overlap and be empty
 * @dst: receives them one behind the other, each packed
 *
 * Reads are started in file order for all boxes before the first copy; what
 * boxes share is read once.
 *
 * Return: bytes copied, or as mmnf_get().
 */
MMNF_API ssize_t mmnf_batch_get_boxes(struct mmnf_field *field,
				      const struct mmnf_box *box, size_t nr,
				      void *dst, size_t dst_bytes);

/*
 * Without waiting: a batch takes requests and gives completions, in any order.
 *
 *	mmnf_batch_open(&batch, field, NULL);
 *	mmnf_batch_submit(batch, &request, 1);
 *	mmnf_batch_reap(batch, &completion, 1, 1, -1);
 *	mmnf_batch_close(batch);
 *
 * There is no thread behind it: submit, cancel and reap move things on, and where
 * there is no io_uring they read.  All of
 * these may be called by several threads at once, close by one.
 */
struct mmnf_batch;

struct mmnf_batch_opts {
	size_t size;
	uint32_t depth; /* reads at once, at most 1024; 0: 64 */
	int32_t eventfd; /* the caller's, non-blocking: readable when there may
			  * be something to reap, reset by reap.  0: none */
};

/**
 * struct mmnf_request - boxes or records to copy out
 * @user_data: comes back with the completion
 * @box: @nr boxes; or
 * @index: @nr indices along axis 0, any order, repeats allowed
 * @dst: receives them packed, one behind the other; the caller leaves it alone
 *	until the completion, and keeps it till then
 * @deadline_ns: by CLOCK_MONOTONIC; then it ends with -ETIMEDOUT; 0: none
 * @once: 1: as mmnf_open_opts.l2_once, for this request
 * @reserved, @reserved2: 0
 *
 * @box and @index are not looked at after mmnf_batch_submit().
 */
struct mmnf_request {
	uint64_t user_data;
	const struct mmnf_box *box;
	const uint64_t *index;
	size_t nr;
	void *dst;
	size_t dst_bytes;
	int64_t deadline_ns;
	uint32_t once, reserved;
	uint64_t reserved2;
};

struct mmnf_completion {
	uint64_t user_data;
	int64_t result; /* bytes copied, or -errno */
};

/**
 * mmnf_batch_open() - make a batch of a field
 * @out: receives it; NULL on failure
 * @field: must stay open until the batch is closed
 * @opts: NULL for defaults
 * Return: 0, -EINVAL, -EOPNOTSUPP (unknown option), -ENOMEM, -EMFILE.
 */
MMNF_API int mmnf_batch_open(struct mmnf_batch **out, struct mmnf_field *field,
			     const struct mmnf_batch_opts *opts);

/**
 * mmnf_batch_submit() - start requests, do not wait
 * @requests: @nr of them, each a whole list of boxes or records
 *
 * Return: how many were taken, from the first on; if the first is wrong, its
 * error: -EINVAL, -ERANGE, -ENOSPC (dst is too small), -ENOMEM.
 */
MMNF_API int mmnf_batch_submit(struct mmnf_batch *batch,
			       const struct mmnf_request *requests,
			       unsigned int nr);

/**
 * mmnf_batch_reap() - collect requests that are done
 * @out: receives up to @max completions
 * @min: wait for so many, or until nothing is under way
 * @timeout_ns: wait no longer; 0: not at all; negative: for ever
 *
 * A completion's error is a -errno as of mmnf_get(), -ECANCELED or -ETIMEDOUT;
 * mmnf_last_error() has the words of the last of them.  Then no byte of dst is
 * written any more; what it holds is not defined.
 *
 * Return: how many.
 */
MMNF_API int mmnf_batch_reap(struct mmnf_batch *batch,
			     struct mmnf_completion *out, unsigned int max,
			     unsigned int min, int64_t timeout_ns);

/**
 * mmnf_batch_cancel() - stop requests
 * @user_data: which; those that are done already are left
 *
 * Each still has a completion, of -ECANCELED.
 *
 * Return: how many.
 */
MMNF_API int mmnf_batch_cancel(struct mmnf_batch *batch, uint64_t user_data);

/**
 * mmnf_batch_close() - stop all, wait until nothing is written, release
 * NULL is fine; never fails.  Completions that were not reaped are lost.
 */
MMNF_API void mmnf_batch_close(struct mmnf_batch *batch);

/**
 * mmnf_write() - copy a box in
 * @src: elements in C order, packed; @src_bytes must be exactly the box
 *
 * Segments appear when first written, where they have an index or a fill that is not
 * zero once that is durable.  Written data is in the page cache: call
 * mmnf_field_sync() to make it durable.  A failed write leaves a part of the
 * box written, the rest as it was.  A writer that dies leaves old, new or fill in
 * each element.
 *
 * Fields in tiles: a tile that was not there is seen by other handles and by
 * pointers once this handle is synced or closed, by mmnf_get() at once; only
 * mmnf_field_sync() tells whether that worked.  Where another program has packed the
 * tiles of a segment, its first write copies it: handles that had opened it before see
 * it as it was.
 *
 * One writer per region: while one handle writes, another that writes the same
 * bytes gets -EBUSY.  In tiles a handle owns what it has written until it is
 * synced.
 *
 * Return: bytes written, -EBADF (opened read-only), -ERANGE, -EINVAL, -EBUSY,
 * -ENOSPC...
 */
MMNF_API ssize_t mmnf_write(struct mmnf_field *field,
			    const struct mmnf_box *box, const void *src,
			    size_t src_bytes);

/**
 * mmnf_field_sync() - make all writes through this handle durable
 *
 * Other threads go on to read and write meanwhile, the same segments, too.  But where
 * tiles of a segment are new since the last sync, or the field has checksums, writes to
 * any tile of it wait until the disk has them.
 *
 * The kernel says once that it could not write data out, and takes it for written then.
 * So when the storage has failed (mostly -EIO; -ENOSPC or -EDQUOT where the file system
 * finds out late) each later sync of the handle fails as well, and tiles that were new
 * are not named: what was written since the last sync that returned 0 may be lost.  Open
 * the field again and write it again.  Until then a segment with such tiles whose file had
 * to be closed, because of the many that are open, is -EIO to read and to write.  After
 * errors before the storage was asked, as of files that cannot be opened, the next sync
 * tries again.  Of a field on the network a loss is said once.
 *
 * Return: 0 or -errno.
 */
MMNF_API int mmnf_field_sync(struct mmnf_field *field);

/**
 * mmnf_field_resize() - more elements along axis 0
 * @extent: at least the present one, also where another handle has made it so
 *
 * The new elements are fill; segments that are there are not touched.  Other
 * handles see it when they are opened again.  No other call may use the handle
 * meanwhile.
 *
 * Return: 0, -EINVAL (@extent is smaller), -ENOSPC (the servers of a field on the
 * network have no room for it), -EOVERFLOW, -EBADF (read-only, or not a Zarr
 * array), errors of storage.
 */
MMNF_API int mmnf_field_resize(struct mmnf_field *field, uint64_t extent);

struct mmnf_verify_opts {
	size_t size;
	uint32_t repair; /* 1: write the checksum of an index anew where a
			  * writer died before it did */
	uint32_t reserved;
	void (*found)(void *arg, const char *text); /* a line per finding */
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};

struct mmnf_verify_result {
	size_t size; /* set by the caller */
	uint64_t nr_segments; /* there are */
	uint64_t nr_tiles; /* there are, in fields with tiles */
	uint64_t nr_checked; /* of them by their checksum */
	uint64_t nr_bad; /* findings that were not repaired */
	uint64_t nr_repaired;
};

/**
 * mmnf_field_verify() - look at everything a field has on disk
 * @opts: NULL for defaults
 *
 * Lengths of segments, indexes of tiles and their checksums, and of tiles those
 * that were created with checksums.  Reads all of the latter.
 *
 * Return: 0, whatever was found; -EINVAL, -EBADF (repair and read-only).
 */
MMNF_API int mmnf_field_verify(struct mmnf_field *field,
			       const struct mmnf_verify_opts *opts,
			       struct mmnf_verify_result *result);

/**
 * mmnf_prefetch() - start reading a box, do not wait
 *
 * Of boxes that follow each other in a file the kernel's readahead may read the
 * beginning of the next one, too (engine mmap, not with prefetch_off).
 *
 * Return: bytes queued or already there, or -errno for a wrong box; errors of
 * the storage are left to the access that needs the data.
 */
MMNF_API ssize_t mmnf_prefetch(struct mmnf_field *field,
			       const struct mmnf_box *box);

/**
 * mmnf_evict() - drop clean, unmapped pages of a box from the page cache, and from
 * L2 and what is known of holes there
 *
 * What another handle or process maps stays, also for its copies of records and rows.
 * A large folio, as the kernel's readahead makes them, goes only where the box has all
 * of it.
 *
 * Return: bytes that were resident before and are not now, or -errno.
 */
MMNF_API ssize_t mmnf_evict(struct mmnf_field *field,
			    const struct mmnf_box *box);

/*
 * States of the bytes of a box.  hot: resident and in use: with the engine DEVICE
 * mapped by any process or touched since they came, with others mapped by this
 * process; warm: resident, and not hot; cold: on storage only, or never written.
 */
struct mmnf_residency {
	size_t size; /* set by the caller */
	uint64_t hot_bytes, warm_bytes, cold_bytes;
};

/**
 * mmnf_residency() - where a box is now, by whole pages
 *
 * Of a file that the caller neither owns nor may write Linux tells nothing: there
 * only what this field has mapped is known, and is hot; the rest is cold.
 *
 * Return: 0 or -errno.
 */
MMNF_API int mmnf_residency(struct mmnf_field *field,
			    const struct mmnf_box *box,
			    struct mmnf_residency *out);

struct mmnf_field_stats {
	size_t size; /* set by the caller */
	uint64_t gets, get_bytes, windows_mapped, windows_unmapped;
	/* Faults where the kernel predicts (DEVICE), else accesses through the
	 * library.  accesses = hits + late + misses. */
	uint64_t accesses, hits, late, misses;
	/* prefetched = used + wasted + pending.  With what the kernel's readahead
	 * reads for a walk of the library's, but not what mmnf_prefetch() asks for. */
	uint64_t prefetched_pages, used_pages, wasted_pages, pending_pages;
};

/**
 * mmnf_field_stats() - counters since open
 * Return: 0 or -errno.
 */
MMNF_API int mmnf_field_stats(struct mmnf_field *field,
			      struct mmnf_field_stats *stats);

/*
 * Pointer access.  The struct below is the read-only public head of every
 * field: it is here so that mmnf_activate() is arithmetic and one load where the
 * elements follow each other through all segments, these fit into memory's
 * addresses, and the kernel predicts, or nobody:
 *
 *	position = sum(coord[i] * stride[i])
 *	address  = base[position / pitch] + position % pitch
 *
 * Where that is not so, the library finds the address.
 */
struct mmnf_view {
	uint32_t ndim;
	uint32_t direct; /* ndim, where it is so; else 0 */
	uint64_t pitch; /* positions of a segment; 0: there is one segment */
	uint64_t row; /* see mmnf_row_elements() */
	uint64_t extent[MMNF_NDIM_MAX];
	int64_t stride[MMNF_NDIM_MAX]; /* bytes, through all segments */
	const char **base; /* position 0 of each segment; NULL: not mapped yet */
};

MMNF_API const void *mmnf_activate_slow(struct mmnf_field *field,
					uint64_t segment, uint64_t offset);
MMNF_API const void *mmnf_activate_tiled(struct mmnf_field *field,
					 const uint64_t *coord);
MMNF_API const void *mmnf_activate_other(struct mmnf_field *field,
					 uint32_t ndim, uint64_t c0,
					 uint64_t c1, uint64_t c2);

/* Of a position that is inside; NULL: its segment is not mapped yet. */
static inline const void *mmnf_activate_position(const struct mmnf_view *v,
						 uint64_t position)
{
	uint64_t segment = 0;
	const char *base;

	if (v->pitch) {
		segment = position / v->pitch;
		position %= v->pitch;
	}
	base = __atomic_load_n(&v->base[segment], __ATOMIC_RELAXED);
	return base ? base + position : NULL;
}

/**
 * mmnf_activate() - pointer to an element
 * @field: an open field
 * @coord: ndim coordinates
 *
 * mmnf_row_elements() elements of the last axis lie there one behind the other:
 * the row as far as the tile goes.  The others of a field that is not in tiles
 * are found by mmnf_field_info.stride_bytes.  Nothing is read here: touching the
 * memory does it.  The pointer stays good until the field is closed or
 * max_windows other segments have been activated since; mmnf_window_pin() makes
 * one that stays.  A pointer to a tile
 * that was never written goes on showing the fill value after somebody writes
 * the tile: activate again.  A read error or a file cut short raises SIGBUS at
 * the touch, unless mmnf_guard_enable() was called; mmnf_get() does not.
 *
 * Return: the address, or NULL (mmnf_last_error() says why) if a coordinate is
 * outside or the segment cannot be mapped.
 */
static inline const void *mmnf_activate(struct mmnf_field *field,
					const uint64_t *coord)
{
	const struct mmnf_view *v = (const struct mmnf_view *)field;
	uint64_t position = 0;
	const void *p;
	uint32_t i;

	for (i = 0; i < v->direct; i++) {
		if (coord[i] >= v->extent[i])
			return mmnf_activate_tiled(field, coord);
		position += coord[i] * (uint64_t)v->stride[i];
	}
	p = i ? mmnf_activate_position(v, position) : NULL;
	return p ? p : mmnf_activate_tiled(field, coord);
}

/**
 * mmnf_activate_2d(), mmnf_activate_3d() - the same where the program knows ndim
 *
 * Nine instructions more than the same arithmetic and checks by hand, as
 * tests/integration/activate.sh counts them: two see that the field has so many
 * axes and is addressed by arithmetic, four spare the division where there is one
 * segment, three reach a table of segments of any length.
 *
 * Return: as mmnf_activate(); NULL, too, if the field has another ndim.
 */
static inline const void *mmnf_activate_2d(struct mmnf_field *field, uint64_t y,
					   uint64_t x)
{
	const struct mmnf_view *v = (const struct mmnf_view *)field;
	const void *p = NULL;

	if (__builtin_expect(
		    v->direct == 2 && y < v->extent[0] && x < v->extent[1], 1))
		p = mmnf_activate_position(v,
					   y * (uint64_t)v->stride[0] +
						   x * (uint64_t)v->stride[1]);
	if (__builtin_expect(!p, 0))
		p = mmnf_activate_other(field, 2, y, x, 0);
	return p;
}

static inline const void *mmnf_activate_3d(struct mmnf_field *field, uint64_t z,
					   uint64_t y, uint64_t x)
{
	const struct mmnf_view *v = (const struct mmnf_view *)field;
	const void *p = NULL;

	if (__builtin_expect(v->direct == 3 && z < v->extent[0] &&
				     y < v->extent[1] && x < v->extent[2],
			     1))
		p = mmnf_activate_position(v,
					   z * (uint64_t)v->stride[0] +
						   y * (uint64_t)v->stride[1] +
						   x * (uint64_t)v->stride[2]);
	if (__builtin_expect(!p, 0))
		p = mmnf_activate_other(field, 3, z, y, x);
	return p;
}

/**
 * mmnf_window_pin() - pointer to an element that stays good
 * @coord: ndim coordinates
 *
 * As mmnf_activate(), but the pointer is good until mmnf_window_unpin(), or the
 * field is closed, whatever else is activated.  Pins of one segment count once;
 * fewer than max_windows segments can have one, unless all of the field's fit.
 * Pinned segments count among those that others are pushed out by.
 *
 * Return: the address, or NULL (mmnf_last_error() says why).
 */
MMNF_API const void *mmnf_window_pin(struct mmnf_field *field,
				     const uint64_t *coord);

/**
 * mmnf_window_unpin() - give a pointer of mmnf_window_pin() back
 * @p: it, or another into the same row; each pin is given back once
 * Return: 0, -EINVAL (nothing is pinned there).
 */
MMNF_API int mmnf_window_unpin(struct mmnf_field *field, const void *p);

/**
 * struct mmnf_bad_page - a page that could not be read
 * @size: of this struct
 * @address: that was touched
 * @page, @page_bytes: the page it lies in
 * @segment, @offset_bytes: and where that is on storage
 */
struct mmnf_bad_page {
	size_t size;
	struct mmnf_field *field;
	const void *address;
	const void *page;
	size_t page_bytes;
	uint64_t segment, offset_bytes;
};

/**
 * struct mmnf_guard_opts - what happens when a pointer meets a bad page
 * @bad_page: called in the thread that touched it, in a signal handler: only
 *	what is async-signal-safe may be called.  It returns 0: the page shows
 *	@poison from now on, and the load goes on; or anything else: the signal
 *	goes to the handler that was there before.  It may leave by siglongjmp().
 *	NULL: always 0
 * @arg: for it
 * @poison: one element; NULL: the fill value
 */
struct mmnf_guard_opts {
	size_t size;
	int (*bad_page)(void *arg, const struct mmnf_bad_page *bad);
	void *arg;
	const void *poison;
};

/**
 * mmnf_guard_enable() - no signal where a pointer meets a bad page of this field
 * @opts: NULL for defaults
 *
 * For pointers of mmnf_activate() and mmnf_window_pin(); the copying calls have
 * errors anyway.  A page that shows the poison does so until its segment is
 * mapped anew: the storage is not asked again.
 *
 * The first guard of a process installs a handler of SIGBUS, and the last one
 * that is disabled brings back what was there.  Each SIGBUS that is not of a
 * guarded field goes to that, as if the library were not there.  Handlers that
 * are installed later must pass on to the one they found.
 *
 * Return: 0, -EALREADY, -ENOMEM, -EOPNOTSUPP (unknown option).
 */
MMNF_API int mmnf_guard_enable(struct mmnf_field *field,
			       const struct mmnf_guard_opts *opts);

/**
 * mmnf_guard_disable() - as without; closing the field does it, too
 *
 * A thread that meets a bad page meanwhile may still have its callback.
 *
 * Return: 0, -EINVAL (the field has none).
 */
MMNF_API int mmnf_guard_disable(struct mmnf_field *field);

/**
 * mmnf_guard_bad_pages() - touches of bad pages since mmnf_guard_enable()
 *
 * Zero after a piece of work says that all it saw was data.
 */
MMNF_API uint64_t mmnf_guard_bad_pages(const struct mmnf_field *field);

/**
 * mmnf_row_elements() - how much of the last axis lies behind an element
 * @coord: ndim coordinates, inside
 *
 * Return: elements, this one included, that follow each other in memory from
 * mmnf_activate(field, coord) on: up to the end of the row or of its tile; 1
 * where the last axis is not the fastest in the file (Fortran order).
 */
static inline uint64_t mmnf_row_elements(const struct mmnf_field *field,
					 const uint64_t *coord)
{
	const struct mmnf_view *v = (const struct mmnf_view *)field;
	uint64_t c = coord[v->ndim - 1];
	uint64_t to_end = v->extent[v->ndim - 1] - c;
	uint64_t in_tile = v->row - c % v->row;

	return in_tile < to_end ? in_tile : to_end;
}

/**
 * mmnf_import() - copy a field of any format into another
 * @field: opened writable, same element type
 * @src: anything that mmnf_field_open() takes
 * @at: where its element (0, 0, ...) goes; NULL: the origin.  An array of
 *	fewer axes than the field is placed along the
 *	field's last axes, the missing leading axes having length 1
 * @progress: called now and then with bytes done and in all; NULL for none
 *
 * In blocks of bounded size, each read in the order of its file.
 *
 * Return: bytes written, -EINVAL (header is wrong), -EOPNOTSUPP (big-endian,
 * structured, compressed), -ERANGE (does not fit), -EBADF, errors of storage.
 */
MMNF_API ssize_t mmnf_import(struct mmnf_field *field, const char *src,
			     const uint64_t *at,
			     void (*progress)(void *arg, uint64_t done_bytes,
					      uint64_t total_bytes),
			     void *arg);

/**
 * mmnf_export() - copy a box of a field into a file of another format
 * @box: NULL: the whole field
 * @dst: the file
 * @format: "npy", "safetensors" (one tensor, "data"), "nrrd", "nifti" (-2 where
 *	an extent is above 32767), "fbin" or "raw"; NULL: by the suffix of @dst.
 *	"fbin" has a suffix for each type: .fbin f32, .u8bin, .i8bin, .ibin i32
 * @progress: as for mmnf_import()
 *
 * @dst appears, or replaces a regular file, when it is whole and durable; whatever
 * else is there is left alone.  For a Zarr array: mmnf_field_create() and mmnf_import().
 *
 * Return: bytes of elements written, -EINVAL (also: the name says another type, or
 * is that of a device, link or folder),
 * -EOPNOTSUPP (the format has no such type, or not so many axes), -ERANGE, errors
 * of storage.
 */
MMNF_API ssize_t mmnf_export(struct mmnf_field *field,
			     const struct mmnf_box *box, const char *dst,
			     const char *format,
			     void (*progress)(void *arg, uint64_t done_bytes,
					      uint64_t total_bytes),
			     void *arg);

struct mmnf_array_info {
	size_t size; /* set by the caller */
	uint32_t dtype, ndim;
	uint64_t shape[MMNF_NDIM_MAX];
	uint64_t data_offset_bytes;
	int64_t stride_bytes[MMNF_NDIM_MAX];
	char format[16]; /* as mmnf_field_info's */
};

/**
 * mmnf_array_info() - what mmnf_import() would read from a file
 * Return: 0 or as mmnf_import().
 */
MMNF_API int mmnf_array_info(const char *src, struct mmnf_array_info *info);

/*
 * The GPU tier: tiles of a field kept in the memory of CUDA devices.  It needs
 * no CUDA to build against and none to run: addresses are CUdeviceptr as
 * uint64_t, streams CUstream as void *, and libcuda.so.1 is looked for when the
 * first field asks for it.
 *
 *	mmnf_gpu_enable(field, NULL);
 *	mmnf_batch_get_device(field, &selection, dst, dst_bytes, stream);
 *	kernel<<<..., stream>>>(dst);		no wait in between
 *
 * Streams.  What a call does on the device it does in the order of @stream: it
 * begins when the work queued there before is over, and work queued there
 * afterwards sees its result.  The call returns when everything is queued;
 * reading from the disk is over by then, the device may not be.  A NULL stream is
 * a stream of the library, and the call returns when the result is there.
 *
 * Writes of this process through the same handle are seen.  What others write
 * to the files is seen in tiles that come to the device afterwards, or after
 * mmnf_gpu_forget().  A child after fork() has no GPU.
 */

enum mmnf_gpu_path {
	MMNF_GPU_PATH_AUTO = 0, /* whichever was measured faster */
	MMNF_GPU_PATH_COPY, /* a copy for each tile */
	MMNF_GPU_PATH_KERNEL, /* one copy and a kernel that scatters it */
};

struct mmnf_gpu_opts {
	size_t size;
	uint32_t device; /* CUDA's number of it */
	uint32_t tile_bytes; /* what comes and goes at once: a power of two,
			      * 4 KiB .. 2 MiB; 0: of a record, at most 64 KiB */
	uint64_t budget_bytes; /* most memory of the device, everything
				* included; 0: half of what is free */
	uint32_t path; /* enum mmnf_gpu_path */
	uint32_t reserved; /* 0 */
};

/**
 * mmnf_gpu_enable() - turn the GPU tier of a field on, on one device
 * @opts: NULL for defaults
 *
 * Once for each device that shall keep tiles; each has a cache of its own.
 *
 * Return: 0, -ENODEV (no driver, no such device, built without CUDA; the text
 * says which), -EALREADY, -ENOMEM (the budget is not free), -EINVAL.
 */
MMNF_API int mmnf_gpu_enable(struct mmnf_field *field,
			     const struct mmnf_gpu_opts *opts);

/**
 * struct mmnf_selection - which elements
 * @index, @nr_index: records by their index along axis 0, any order, repeats
 *	allowed
 * @box: elements of a box in C order; excludes @index
 */
struct mmnf_selection {
	size_t size; /* set by the caller */
	const uint64_t *index;
	size_t nr_index;
	const struct mmnf_box *box;
};

/**
 * mmnf_batch_get_device() - copy a selection to memory of a device
 * @dst: device address of the packed result, aligned to the element; the tier
 *	must be on on its device.  Fastest if it and the record are multiples of 16
 * @dst_bytes: room there; must be at least the selection
 * @stream: CUstream of that device, see above
 *
 * Any selection is done with any budget.  After an error the bytes at @dst are
 * undefined.
 *
 * Return: bytes copied, -ERANGE, -ENOSPC (@dst is too small), -EINVAL (not memory
 * of a device, misaligned), -ENODEV (the tier is not on there, the device is lost,
 * or this is a forked child), -ENOMEM, -EIO and other errors of the storage.
 */
MMNF_API ssize_t mmnf_batch_get_device(struct mmnf_field *field,
				       const struct mmnf_selection *selection,
				       uint64_t dst, size_t dst_bytes,
				       void *stream);

/**
 * mmnf_batch_get_host() - copy a selection to memory of the host
 *
 * By way of the first device whose tier is on, else without: the bytes are the
 * same, and a device lost on the way is no error.
 *
 * Return: bytes copied, or as mmnf_get().
 */
MMNF_API ssize_t mmnf_batch_get_host(struct mmnf_field *field,
				     const struct mmnf_selection *selection,
				     void *dst, size_t dst_bytes);

/**
 * mmnf_get_device() - pointer to a record in memory of a device
 * @out: receives its device address, good in the order of @stream
 * @device: CUDA's number; the tier must be on there
 * @index: of the record along axis 0
 *
 * The record stays there until mmnf_put_device().  At most half of the tier can
 * be held so.
 *
 * Return: 0, -ERANGE, -ENODEV, -EBUSY (half of the tier is held), -EOPNOTSUPP (a
 * record lies in more than one tile: its bytes do not divide tile_bytes), errors
 * of the storage.
 */
MMNF_API int mmnf_get_device(struct mmnf_field *field, uint64_t *out,
			     uint32_t device, uint64_t index, void *stream);

/**
 * mmnf_put_device() - give a pointer of mmnf_get_device() back
 * @stream: work queued there before may still use it; NULL: nothing does
 * Return: 0, -EINVAL (not such a pointer), -ENODEV.
 */
MMNF_API int mmnf_put_device(struct mmnf_field *field, uint64_t p,
			     void *stream);

/**
 * mmnf_prefetch_device() - start bringing a selection to a device, do not wait
 *
 * Return: tiles queued or already there, or -errno for a wrong selection; errors
 * of the storage are left to the access that needs the data.
 */
MMNF_API ssize_t mmnf_prefetch_device(struct mmnf_field *field, uint32_t device,
				      const struct mmnf_selection *selection);

/**
 * mmnf_gpu_forget() - drop the tiles of a box from all devices
 * Return: bytes dropped, or -errno for a wrong box.
 */
MMNF_API ssize_t mmnf_gpu_forget(struct mmnf_field *field,
				 const struct mmnf_box *box);

/*
 * Of one device, since it was enabled.  A tile counts once for each part of a
 * batch that needs it: touched = hits + late + misses.  late: somebody was
 * reading it.  prefetched = used + wasted + pending.
 */
struct mmnf_gpu_stats {
	size_t size; /* set by the caller */
	uint64_t hits, late, misses;
	uint64_t prefetched, used, wasted, pending;
	uint64_t parts; /* gathers */
	uint64_t overflow; /* tiles of selections too large to be kept */
	uint64_t read_bytes; /* from lower tiers */
	uint64_t copied_bytes; /* to the device, by copy engines alone */
	uint64_t scattered_bytes; /* to the device, by the scatter kernel */
	uint64_t gathered_bytes; /* to results */
	uint64_t tile_bytes, nr_slots, nr_slots_used;
};

/**
 * mmnf_gpu_stats() - counters of one device
 * Return: 0, -ENODEV (the tier is not on there), -EINVAL.
 */
MMNF_API int mmnf_gpu_stats(struct mmnf_field *field, uint32_t device,
			    struct mmnf_gpu_stats *stats);

/**
 * mmnf_device_alloc() - memory of a device for results
 * @out: receives its address, aligned to 256; NULL (0) on failure
 * @device: CUDA's number; no field need have its tier on there
 *
 * For programs without CUDA of their own.  Not counted in any tier's budget.
 *
 * Return: 0, -EINVAL, -ENODEV (no such device), -ENOMEM.
 */
MMNF_API int mmnf_device_alloc(uint64_t *out, uint32_t device, size_t bytes);

/**
 * mmnf_device_free() - give memory of mmnf_device_alloc() back; 0 is fine
 * @stream: waited for, as work queued there may still use it; NULL: nothing does
 * Return: 0, -EINVAL (not such memory), -EIO (the device is lost).
 */
MMNF_API int mmnf_device_free(uint64_t p, void *stream);

/**
 * mmnf_device_order() - let one stream wait for another
 * @first: work queued here till now is done before
 * @then: what is queued here from now on.  Neither may be NULL
 *
 * Does not wait itself.
 *
 * Return: 0, -EINVAL, -ENODEV, -EIO.
 */
MMNF_API int mmnf_device_order(uint32_t device, void *first, void *then);

/**
 * mmnf_device_read() - copy memory of a device to the host
 * @p: device address inside any allocation on that device
 * @stream: what is queued there is done before; NULL: nothing has to be
 *
 * Returns when the bytes are there.
 *
 * Return: bytes copied, -EINVAL (not memory of that device, or it ends before),
 * -ENODEV, -EIO.
 */
MMNF_API ssize_t mmnf_device_read(uint32_t device, void *dst, uint64_t p,
				  size_t bytes, void *stream);

/*
 * Of one server of a field on the network, since it was opened.
 * requeued: requests that were sent again because a connection was lost.
 */
struct mmnf_net_stats {
	size_t size; /* set by the caller */
	uint32_t nr_servers; /* of the field */
	uint32_t connections, connections_up;
	uint32_t window; /* requests that may be in flight now */
	uint32_t in_flight, queued;
	uint64_t size_bytes; /* of the export */
	uint64_t reads, writes, flushes, read_bytes, written_bytes;
	uint64_t retries; /* after an error of the server */
	uint64_t requeued, timeouts, reconnects;
	uint64_t refused; /* it came back as something else */
	uint64_t failed; /* requests that ended with an error */
	uint64_t latency_p50_ns, latency_p99_ns; /* of requests, in classes */
	uint64_t holes, hole_bytes; /* known now to read as zeros */
	uint64_t hole_reads; /* that were answered from there */
	char uri[128]; /* of the gateway in use */
	char cause[160]; /* why no connection is up; "": one is */
};

/**
 * mmnf_net_stats() - counters of one server
 * @server: 0 .. nr_servers - 1
 * Return: 0, -ERANGE, -EINVAL (.size), -EOPNOTSUPP (the field is not on the
 * network).
 */
MMNF_API int mmnf_net_stats(struct mmnf_field *field, uint32_t server,
			    struct mmnf_net_stats *stats);

#define MMNF_TIERS_MAX 16

/**
 * struct mmnf_tier - one place where bytes of a field may be
 * @level: 1 GPU, 2 RAM, 3 local storage, 4 network
 * @size_bytes, @used_bytes: what it can hold for this field and does; 0 where
 *	that is not known or it is off
 * @text: what it is, or why it is off
 */
struct mmnf_tier {
	uint32_t level, is_on;
	uint64_t size_bytes, used_bytes;
	char name[16];
	char text[232];
};

struct mmnf_tiers {
	size_t size; /* set by the caller */
	uint32_t nr_tiers;
	struct mmnf_tier tier[MMNF_TIERS_MAX];
};

/**
 * mmnf_tiers_info() - which tiers a field has, nearest first
 * Return: 0, -EINVAL if .size is wrong.
 */
MMNF_API int mmnf_tiers_info(struct mmnf_field *field, struct mmnf_tiers *out);

#ifdef __cplusplus
}
#endif

#endif /* MMNF_H */
