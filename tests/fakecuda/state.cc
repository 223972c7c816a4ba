// SPDX-License-Identifier: MIT
/* Devices, memory, queues, chance and faults: what the API of driver.cc acts on. */
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>

#include "fake.h"

#define PAGE 4096ul
#define ALIGN 256ul
#define POISON 0xff

std::recursive_mutex fake_lock;
std::vector<fake_device> fake_devices;
size_t fake_memory_bytes;

namespace
{

struct allocation {
	int device;
	size_t bytes, body_bytes;
	char *body; /* whole pages; one more stands unmapped at each end */
};

struct pinning {
	int device;
	size_t bytes;
};

std::mt19937 chance;
bool is_started;
pid_t owner;
std::string fail_spec, plant_spec;
std::map<std::string, unsigned> calls;
std::map<uint64_t, allocation> memory;
std::map<uint64_t, pinning> pinned;
std::vector<fake_stream *> streams;
unsigned nr_streams;
std::map<CUevent, std::shared_ptr<fake_event>> events;
thread_local std::vector<int> contexts;

const char *setting(const char *name, const char *otherwise)
{
	const char *value = getenv(name);

	return value ? value : otherwise;
}

bool overlap(const fake_span &s, uint64_t start, size_t bytes)
{
	return s.start < start + bytes && start < s.start + s.bytes;
}

bool in_use(uint64_t start, size_t bytes)
{
	for (auto s : streams)
		for (auto &op : s->queue)
			for (auto &span : op.uses)
				if (overlap(span, start, bytes))
					return true;
	return false;
}

/* The pages of device memory that a piece of work was told to use, no others. */
void protect(const std::vector<fake_span> &uses, int protection)
{
	for (auto &span : uses) {
		uint64_t from = span.start / PAGE * PAGE;
		uint64_t to =
			(span.start + span.bytes + PAGE - 1) / PAGE * PAGE;

		if (span.bytes && fake_memory_find(span.start, 0, nullptr) >= 0)
			mprotect((void *)from, to - from, protection);
	}
}

bool held_back(const fake_stream *s)
{
	const fake_op &op = s->queue.front();

	return op.wait && op.wait->done < op.tick;
}

void remove_stream(fake_stream *s)
{
	streams.erase(std::find(streams.begin(), streams.end(), s));
	delete s;
}

void check_canary(uint64_t p, const allocation &a)
{
	auto end = (unsigned char *)a.body + a.body_bytes;

	mprotect(a.body, a.body_bytes, PROT_READ);
	for (auto c = (unsigned char *)p + a.bytes; c < end; c++)
		if (*c != POISON)
			fake_die("a write behind an allocation of %zu bytes",
				 a.bytes);
}

/* "name:3=2" or "name:3+=2": does the nth call of that name fail? */
CUresult injected(const char *call, unsigned nth)
{
	size_t from = 0;

	while (from < fail_spec.size()) {
		size_t to =
			std::min(fail_spec.find(',', from), fail_spec.size());
		std::string one = fail_spec.substr(from, to - from);
		size_t colon = one.find(':'), equal = one.find('=');
		unsigned n;
		bool all_after;

		from = to + 1;
		if (colon == std::string::npos || equal == std::string::npos)
			fake_die("MMNF_FAKECUDA_FAIL: '%s'", one.c_str());
		if (one.substr(0, colon) != call)
			continue;
		n = (unsigned)atoi(one.c_str() + colon + 1);
		all_after = one[equal - 1] == '+';
		if (nth == n || (all_after && nth > n))
			return (CUresult)atoi(one.c_str() + equal + 1);
	}
	return CUDA_SUCCESS;
}

} // namespace

void fake_die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("fakecuda: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	abort();
}

unsigned fake_random()
{
	return chance();
}

CUresult fake_init()
{
	int nr = atoi(setting("MMNF_FAKECUDA_DEVICES", "1"));

	if (!is_started) {
		is_started = true;
		owner = getpid();
		chance.seed(atoi(setting("MMNF_FAKECUDA_SEED", "1")));
		fail_spec = setting("MMNF_FAKECUDA_FAIL", "");
		plant_spec = setting("MMNF_FAKECUDA_PLANT", "");
		fake_memory_bytes = strtoull(
			setting("MMNF_FAKECUDA_MEMORY", "67108864"), NULL, 0);
		fake_devices.resize((size_t)nr);
	}
	return (CUresult)atoi(setting("MMNF_FAKECUDA_INIT", "0"));
}

CUresult fake_enter(const char *call, bool needs_context)
{
	unsigned steps = fake_random() % 4;
	int device = fake_current();
	CUresult r;

	if (!is_started)
		return CUDA_ERROR_NOT_INITIALIZED;
	if (owner != getpid())
		fake_die("%s in a forked child", call);
	r = injected(call, ++calls[call]);
	if (needs_context && device < 0)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (needs_context && fake_devices[device].lost)
		return fake_devices[device].lost;
	if (((r >= 700 && r < 800) || r == CUDA_ERROR_UNKNOWN) && device >= 0)
		fake_devices[device].lost = r;
	while (!r && steps-- > 1 && !fake_planted("lazy") && fake_step())
		;
	return r;
}

int fake_current()
{
	return contexts.empty() ? -1 : contexts.back();
}

void fake_push(int device)
{
	contexts.push_back(device);
}

bool fake_pop(int *device)
{
	if (contexts.empty())
		return false;
	*device = contexts.back();
	contexts.pop_back();
	return true;
}

bool fake_planted(const char *mistake, const fake_stream *s)
{
	size_t at = plant_spec.find('@');

	if (plant_spec.substr(0, at) != mistake)
		return false;
	return at == std::string::npos || !s ||
	       s->number == (unsigned)atoi(plant_spec.c_str() + at + 1);
}

CUresult fake_memory_new(int device, size_t bytes, CUdeviceptr *out)
{
	size_t body = (bytes + PAGE - 1) / PAGE * PAGE;
	fake_device &d = fake_devices[device];
	char *map;

	if (!bytes)
		return CUDA_ERROR_INVALID_VALUE;
	if (bytes > fake_memory_bytes || d.used > fake_memory_bytes - bytes)
		return CUDA_ERROR_OUT_OF_MEMORY;
	map = (char *)mmap(NULL, body + 2 * PAGE, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		return CUDA_ERROR_OUT_OF_MEMORY;
	mprotect(map + PAGE, body, PROT_READ | PROT_WRITE);
	memset(map + PAGE, POISON, body);
	mprotect(map + PAGE, body, PROT_NONE);
	/* As far back as alignment lets it: the guard is behind its end. */
	*out = (CUdeviceptr)(map + PAGE + body -
			     (bytes + ALIGN - 1) / ALIGN * ALIGN);
	memory[*out] = { device, bytes, body, map + PAGE };
	d.used += bytes;
	return CUDA_SUCCESS;
}

CUresult fake_memory_free(int device, CUdeviceptr p)
{
	auto m = memory.find(p);

	if (m == memory.end() || m->second.device != device)
		return CUDA_ERROR_INVALID_VALUE;
	if (in_use(p, m->second.bytes))
		fake_die("device memory freed that queued work uses");
	check_canary(p, m->second);
	fake_devices[device].used -= m->second.bytes;
	munmap(m->second.body - PAGE, m->second.body_bytes + 2 * PAGE);
	memory.erase(m);
	return CUDA_SUCCESS;
}

int fake_memory_find(uint64_t p, size_t bytes, fake_span *whole)
{
	auto m = memory.upper_bound(p);

	if (m == memory.begin())
		return -1;
	--m;
	if (p - m->first >= m->second.bytes ||
	    bytes > m->second.bytes - (p - m->first))
		return -1;
	if (whole)
		*whole = { m->first, m->second.bytes };
	return m->second.device;
}

CUresult fake_pinned_new(size_t bytes, void **out)
{
	if (!bytes || posix_memalign(out, PAGE, bytes))
		return CUDA_ERROR_OUT_OF_MEMORY;
	memset(*out, POISON, bytes);
	pinned[(uint64_t)*out] = { fake_current(), bytes };
	return CUDA_SUCCESS;
}

CUresult fake_pinned_free(void *p)
{
	auto m = pinned.find((uint64_t)p);

	if (m == pinned.end())
		return CUDA_ERROR_INVALID_VALUE;
	if (in_use(m->first, m->second.bytes))
		fake_die("page-locked memory freed that queued work uses");
	pinned.erase(m);
	free(p);
	return CUDA_SUCCESS;
}

bool fake_pinned(const void *p, size_t bytes)
{
	auto m = pinned.upper_bound((uint64_t)p);
	size_t offset;

	if (m == pinned.begin())
		return false;
	--m;
	offset = (uint64_t)p - m->first;
	return offset < m->second.bytes && bytes <= m->second.bytes - offset;
}

CUresult fake_stream_new(int device, CUstream *out)
{
	auto s = new fake_stream;

	s->device = device;
	s->number = nr_streams++;
	streams.push_back(s);
	*out = (CUstream)s;
	return CUDA_SUCCESS;
}

fake_stream *fake_stream_find(CUstream handle)
{
	for (auto s : streams)
		if ((CUstream)s == handle && !s->destroyed &&
		    s->device == fake_current())
			return s;
	return nullptr;
}

void fake_stream_queue(fake_stream *s, fake_op op)
{
	s->queue.push_back(std::move(op));
}

/* Its work goes on, as with the driver. */
void fake_stream_free(fake_stream *s)
{
	s->destroyed = true;
	if (s->queue.empty())
		remove_stream(s);
}

CUresult fake_event_new(int device, bool timing, CUevent *out)
{
	auto e = std::make_shared<fake_event>();

	e->device = device;
	e->timing = timing;
	*out = (CUevent)e.get();
	events[*out] = e;
	return CUDA_SUCCESS;
}

std::shared_ptr<fake_event> fake_event_find(CUevent handle)
{
	auto e = events.find(handle);

	return e == events.end() || e->second->device != fake_current() ?
		       nullptr :
		       e->second;
}

void fake_event_free(CUevent handle)
{
	events.erase(handle);
}

bool fake_step()
{
	std::vector<fake_stream *> ready;
	fake_stream *s;
	fake_op op;

	for (auto i : streams)
		if (!i->queue.empty() && !held_back(i))
			ready.push_back(i);
	if (ready.empty())
		return false;
	s = ready[fake_random() % ready.size()];
	op = std::move(s->queue.front());
	s->queue.pop_front();
	if (op.run && !fake_devices[s->device].lost) {
		protect(op.uses, PROT_READ | PROT_WRITE);
		op.run(fake_random());
		protect(op.uses, PROT_NONE);
	}
	if (op.record)
		op.record->done = std::max(op.record->done, op.tick);
	if (s->destroyed && s->queue.empty())
		remove_stream(s);
	return true;
}

void fake_until(const std::function<bool()> &holds)
{
	while (!holds())
		if (!fake_step())
			fake_die("waits for work that can never be done");
}

std::string fake_held(int device)
{
	size_t nr_memory = 0, nr_pinned = 0, nr_streams_left = 0;
	size_t nr_events = 0;
	char text[160];

	if (fake_devices[device].lost)
		return "";
	for (auto &m : memory)
		nr_memory += m.second.device == device;
	for (auto &p : pinned)
		nr_pinned += p.second.device == device;
	for (auto s : streams)
		nr_streams_left += s->device == device && !s->destroyed;
	for (auto &e : events)
		nr_events += e.second->device == device;
	if (!nr_memory && !nr_streams_left && !nr_events &&
	    !fake_devices[device].nr_modules && !nr_pinned)
		return "";
	snprintf(
		text, sizeof(text),
		"%zu allocations, %zu page-locked, %zu streams, %zu events, %zu modules",
		nr_memory, nr_pinned, nr_streams_left, nr_events,
		fake_devices[device].nr_modules);
	return text;
}

void fake_drop(int device)
{
	for (auto m = memory.begin(); m != memory.end();) {
		if (m->second.device == device) {
			munmap(m->second.body - PAGE,
			       m->second.body_bytes + 2 * PAGE);
			m = memory.erase(m);
		} else {
			++m;
		}
	}
	for (auto p = pinned.begin(); p != pinned.end();) {
		if (p->second.device == device) {
			free((void *)p->first);
			p = pinned.erase(p);
		} else {
			++p;
		}
	}
	for (size_t i = streams.size(); i--;)
		if (streams[i]->device == device)
			remove_stream(streams[i]);
}

/* For tests; not of CUDA. */
extern "C" {

unsigned fakecuda_calls(const char *name)
{
	std::lock_guard<std::recursive_mutex> guard(fake_lock);

	return calls[name];
}

void fakecuda_reset_calls()
{
	std::lock_guard<std::recursive_mutex> guard(fake_lock);

	calls.clear();
}

/* From now on, its counts beginning anew. */
void fakecuda_fail(const char *spec)
{
	std::lock_guard<std::recursive_mutex> guard(fake_lock);

	calls.clear();
	fail_spec = spec;
}

void fakecuda_plant(const char *spec)
{
	std::lock_guard<std::recursive_mutex> guard(fake_lock);

	plant_spec = spec;
}
}
