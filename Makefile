# SPDX-License-Identifier: MIT
# The one Makefile.  User objects and, by a copy of links, kernel objects go to
# build/; nothing is ever written beside a source.
#
#	make			module, library and tool
#	make lib tools		without kernel headers
#	make check		install what is missing, build, run every test
#	make check T='unit/*'	some of them
#
# Sources are found by wildcard: a new file needs no line here, except a kernel
# object, which Kbuild names.

VERSION := $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
SOVERSION := 0

# The kernel to build for and to test in: the running one where its headers are
# installed, else the newest with headers.  K=6.1 picks the newest 6.1; K=6.12,
# new and debug are those of tests/vm/kernels.sh, each in a root of its own.  KVER=
# names one exactly; where it was only exported, K= goes before it.
with_headers = $(patsubst $(1)/lib/modules/%/build,%,\
	$(wildcard $(1)/lib/modules/$(2)/build))
newest = $(lastword $(shell printf '%s\n' $(1) | sort -V))
running := $(shell uname -r)
ifeq ($(origin KVER),command line)
ifeq ($(origin K),command line)
$(error mmnf: K=$(K) and KVER=$(KVER) both name a kernel: expected one of them)
endif
else ifneq ($(K),)
KVER :=
endif
ifeq ($(KVER),)
KVER := $(call newest,$(if $(K),$(or \
	$(call with_headers,$(wildcard build/kernels/$(K)),*),\
	$(call with_headers,,$(K)*)),$(or \
	$(call with_headers,,$(running)),$(call with_headers,,*))))
endif
KROOT := $(if $(wildcard /lib/modules/$(KVER)/build),,$(patsubst \
	%/lib/modules/$(KVER),$(CURDIR)/%,\
	$(wildcard build/kernels/*/lib/modules/$(KVER))))
KDIR ?= $(KROOT)/lib/modules/$(KVER)/build
# A kernel that wants another compiler than this machine's brings its own make.
KMAKE := $(if $(wildcard $(KROOT)/kmake),$(KROOT)/kmake $(CURDIR) -C \
	/lib/modules/$(KVER)/build,$(MAKE) -C $(KDIR))
KMOD_DIR ?= build/kmod/$(KVER)
KUNIT_DIR := build/kunit/$(KVER)

PREFIX ?= /usr/local
DESTDIR ?=

CC ?= gcc
CXX ?= g++
WARN := -Wall -Wextra -Werror
CPPFLAGS += -Iinclude -Iinclude/uapi -Ilib -DMMNF_VERSION='"$(VERSION)"' \
	-D_GNU_SOURCE
CFLAGS ?= -O2 -g
BASE := -MMD -MP $(WARN)
C11 := -std=gnu11 $(BASE)
CXX11 := -std=c++11 $(BASE)
SANITIZE := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer
comma := ,
LIBS := -ljansson -luring -lpthread
TOOL_LIBS := -lcairo -lncursesw -ltinfo -lnbd -lnl-genl-3 -lnl-3
SELFTESTS := build/linux/tools/testing/selftests

# The GPU tier: full where nvcc is, by the copy engines alone where only cuda.h
# is, off where neither is.  `make NVCC= CUDA_INCLUDE=` builds as if without.
CUDA_HOME ?= /usr/local/cuda
NVCC ?= $(firstword $(shell command -v nvcc) $(wildcard $(CUDA_HOME)/bin/nvcc))
FATBINARY = $(dir $(NVCC))fatbinary
CUDA_INCLUDE ?= $(patsubst %/cuda.h,%,$(firstword \
	$(wildcard $(CUDA_HOME)/include/cuda.h /usr/include/cuda.h)))
CPPFLAGS += $(if $(CUDA_INCLUDE),-isystem $(CUDA_INCLUDE),-DMMNF_NO_CUDA)
fake := $(if $(CUDA_INCLUDE),build/libmmnf-fakecuda.so)
GPU_TARGETS := 75 80 90 100

# The network tier: where libnbd is; `make NBD=` builds as if it were not.
NBD ?= $(shell pkg-config --exists libnbd gnutls 2>/dev/null && echo y)
CPPFLAGS += $(if $(NBD),,-DMMNF_NO_NBD)
LIBS += $(if $(NBD),-lnbd -lgnutls)
gather := $(if $(NVCC),build/lib/gather.o)

lib_src := $(wildcard lib/*.c lib/store/*.c lib/core/*.c)
lib_obj := $(lib_src:%.c=build/%.o) $(gather)
asan_obj := $(lib_src:%.c=build/asan/%.o)
core_obj := $(patsubst %.c,build/%.o,$(wildcard lib/core/*.c))
tool_obj := $(patsubst %.c,build/%.o,$(wildcard tools/*.c))
lib := $(if $(lib_obj),build/libmmnf.so)
tool := $(if $(tool_obj),build/mmnf)
map := $(wildcard lib/mmnf.map)

unit := $(patsubst %.c,build/%,$(wildcard tests/unit/*.c)) \
	$(patsubst %.cc,build/%,$(wildcard tests/unit/*.cc))
kselftest := $(patsubst %.c,build/%,$(wildcard tests/kselftest/*.c \
	tests/fuzz/abi.c))
vm := $(patsubst %.c,build/%,$(wildcard tests/vm/*.c))
bench := $(patsubst %.c,build/%,$(filter-out $(if $(NBD),,%/net.c),$(wildcard \
	tests/bench/*.c))) \
	build/tests/bench/walk/walk
walk_obj := $(patsubst %.c,build/%.o,$(wildcard tests/bench/walk/*.c))

# libFuzzer is clang's: none without it.
FUZZ_CC ?= clang
fuzz := $(if $(shell command -v $(FUZZ_CC)),\
	$(patsubst %.c,build/%,$(filter-out %/abi.c,$(wildcard tests/fuzz/*.c))))

# Several of these are names of folders, too.
.PHONY: deb check-deb all kmod kunit lib tools programs check check-vm check-gpu tsan-gpu \
	check-ceph plain-gpu fuzz bench bench-lib bench-net lint quickstart \
	install uninstall dkms dkms-remove modules modules-clean clean deps \
	run-tests run-bench run-fuzz run-quickstart
.DELETE_ON_ERROR:
.SECONDARY:

all: lib tools kmod

lib: $(lib)

tools: $(tool)

kmod: $(if $(wildcard kmod/main.c),modules)

programs: $(fake) $(unit) $(kselftest) $(vm) $(bench) $(fuzz)

# ---- library and tool

$(tool_obj): CPPFLAGS += $(subst -I,-isystem ,$(shell pkg-config \
	--cflags-only-I cairo))

build/%.o: %.c Makefile dkms.conf
	@mkdir -p $(@D)
	$(CC) $(C11) $(CFLAGS) -fPIC -fvisibility=hidden $(CPPFLAGS) -c -o $@ $<

# A binary for each kind of GPU, and PTX for those to come.  Its version says what
# it uses, not which nvcc wrote it, so that older drivers take it: 6.3 is the
# first that knows sm_75.
build/lib/gather.fatbin: lib/gather.cu Makefile
	@mkdir -p $(@D)
	for sm in $(GPU_TARGETS); do \
		$(NVCC) -O3 -cubin -arch=sm_$$sm -o $(@D)/gather.$$sm.cubin $< \
			|| exit 1; \
	done
	$(NVCC) -O3 -ptx -arch=compute_75 -o $(@D)/gather.nvcc.ptx $<
	sed 's/^\.version .*/.version 6.3/' $(@D)/gather.nvcc.ptx \
		>$(@D)/gather.ptx
	$(FATBINARY) -64 --compress-all --create=$@ $(foreach sm,$(GPU_TARGETS),\
		--image3=kind=elf$(comma)sm=$(sm)$(comma)file=$(@D)/gather.$(sm).cubin) \
		--image3=kind=ptx$(comma)sm=75$(comma)file=$(@D)/gather.ptx

build/lib/gather.o: lib/gather.S build/lib/gather.fatbin
	$(CC) -c -Wa,-I$(@D) -o $@ $<

build/tools/nbd-kernel.o: CPPFLAGS += $(shell pkg-config --cflags libnl-genl-3.0)

build/libmmnf.so.$(SOVERSION): $(lib_obj) $(map)
	$(CC) $(CFLAGS) -shared -Wl,-soname,$(@F) -Wl,-z,defs $(LDFLAGS) \
		$(addprefix -Wl$(comma)--version-script=,$(map)) \
		-o $@ $(lib_obj) $(LIBS)

build/libmmnf.so: build/libmmnf.so.$(SOVERSION)
	ln -sf $(<F) $@

# Found beside itself in build/ and in ../lib once installed, wherever that is.
# The predictor is not part of the library's interface: `mmnf predict` has its own.
build/mmnf: $(tool_obj) $(core_obj) $(lib)
	$(CC) $(CFLAGS) $(LDFLAGS) -Wl,-rpath,'$$ORIGIN:$$ORIGIN/../lib' \
		-o $@ $(tool_obj) $(core_obj) $(if $(lib),-Lbuild -lmmnf) \
		$(LIBS) $(TOOL_LIBS) -lm

# ---- kernel module

# kbuild leaves its objects beside the sources it sees, so it sees a folder of
# links: one per kernel, and the tree stays clean.  Links follow edits, so that
# a second build is incremental; those of removed sources go.
modules:
	@$(call headers)
	@$(call links,$(KMOD_DIR),./Kbuild ./dkms.conf kmod/*.[ch] \
		lib/core/*.[ch] include/uapi/linux/*.h)
	+$(KMAKE) M=$(abspath $(KMOD_DIR)) modules

# The core's tests inside the kernel, for one that has KUnit: K=debug.
kunit:
	@$(call headers)
	@$(call links,$(KUNIT_DIR),tests/kunit/* tests/unit/predict_*.h \
		lib/core/*.[ch])
	@ln -sfn tests/kunit/Kbuild $(KUNIT_DIR)/Kbuild
	+$(KMAKE) M=$(abspath $(KUNIT_DIR)) modules

headers = [ -d $(KDIR)/ ] || { echo "mmnf: no kernel headers in '$(KDIR)':" \
	"make deps, or name KVER= or KDIR=" >&2; exit 1; }
links = for f in $(2); do \
		[ -L $(1)/$$f ] && continue; \
		mkdir -p $(1)/$${f%/*} && \
		ln -sfn $(CURDIR)/$$f $(1)/$$f || exit 1; \
	done; find $(1) -xtype l -delete

modules-clean:
	rm -rf $(KMOD_DIR)

# ---- test programs

build/asan/%.o: %.c Makefile dkms.conf
	@mkdir -p $(@D)
	$(CC) $(C11) $(SANITIZE) $(CPPFLAGS) -c -o $@ $<

# An archive: a test that includes a library source to see its statics does not
# get that file a second time.
build/asan/libmmnf.a: $(asan_obj)
	rm -f $@
	$(AR) rcs $@ $^

# The image is outside: a weak symbol takes nothing out of an archive.
asan_lib := $(if $(asan_obj),build/asan/libmmnf.a) $(gather)

# A stand-in for libcuda.so.1, for tests: see tests/fakecuda/fake.h.
build/libmmnf-fakecuda.so: $(wildcard tests/fakecuda/*) lib/gather.cu Makefile
	$(CXX) -std=c++17 $(WARN) -O2 -g -fno-strict-aliasing -fPIC -shared \
		-isystem $(CUDA_INCLUDE) -o $@ $(filter %.cc,$^)

build/tests/unit/%: tests/unit/%.c $(asan_lib) Makefile
	@mkdir -p $(@D)
	$(CC) $(C11) $(SANITIZE) $(CPPFLAGS) -Itests -MT $@ -MF $@.d -o $@ $< \
		$(asan_lib) $(LIBS) -lm

build/tests/unit/%: tests/unit/%.cc $(asan_lib) Makefile
	@mkdir -p $(@D)
	$(CXX) $(CXX11) $(SANITIZE) $(CPPFLAGS) -Itests -MT $@ -MF $@.d -o $@ $< \
		$(asan_lib) $(LIBS)

# Threads under TSan: tests/integration/tsan.sh runs these.
# (gcc sees uninitialized variables where it has put its calls.)
TSAN := -O1 -g -fsanitize=thread -fno-omit-frame-pointer \
	-Wno-maybe-uninitialized
tsan_obj := $(lib_src:%.c=build/tsan/%.o)

build/tsan/%.o: %.c Makefile dkms.conf
	@mkdir -p $(@D)
	$(CC) $(C11) $(TSAN) $(CPPFLAGS) -c -o $@ $<

build/tsan/tests/%: tests/%.c $(tsan_obj) Makefile
	@mkdir -p $(@D)
	$(CC) $(C11) $(TSAN) $(CPPFLAGS) -Itests -MT $@ -MF $@.d -o $@ $< \
		$(tsan_obj) $(LIBS) -lm

# The harness header is the kernel's own; tests/deps.sh takes it from Debian's
# linux-source.
$(SELFTESTS)/kselftest_harness.h:
	tests/deps.sh kselftest

define guest_program
	@mkdir -p $(@D)
	$(CC) $(C11) $(CFLAGS) -D_GNU_SOURCE -Iinclude/uapi -Iinclude -Itests \
		-isystem $(SELFTESTS) -MT $@ -MF $@.d -o $@ $< -lpthread
endef

build/tests/kselftest/%: tests/kselftest/%.c Makefile \
		| $(SELFTESTS)/kselftest_harness.h
	$(guest_program)

build/tests/fuzz/abi: tests/fuzz/abi.c Makefile \
		| $(SELFTESTS)/kselftest_harness.h
	$(guest_program)

# The library once more, with libFuzzer's coverage.
FUZZ_FLAGS := $(SANITIZE) -fsanitize=fuzzer-no-link
fuzz_obj := $(lib_src:%.c=build/fuzz/%.o)

build/fuzz/%.o: %.c Makefile dkms.conf
	@mkdir -p $(@D)
	$(FUZZ_CC) -std=gnu11 -MMD -MP -Wall $(FUZZ_FLAGS) $(CPPFLAGS) -c -o $@ $<

build/fuzz/libmmnf.a: $(fuzz_obj)
	rm -f $@
	$(AR) rcs $@ $^

build/tests/fuzz/%: tests/fuzz/%.c build/fuzz/libmmnf.a Makefile
	@mkdir -p $(@D)
	$(FUZZ_CC) -std=gnu11 -MMD -MP $(WARN) $(SANITIZE) -fsanitize=fuzzer \
		$(CPPFLAGS) -MT $@ -MF $@.d -o $@ $< build/fuzz/libmmnf.a $(LIBS) -lm

define library_program
	@mkdir -p $(@D)
	$(CC) $(C11) $(CFLAGS) $(CPPFLAGS) -Itests -MT $@ -MF $@.d -o $@ $< \
		-Wl,-rpath,'$$ORIGIN/../..' $(if $(lib),-Lbuild -lmmnf) \
		-luring -lpthread -lm
endef

build/tests/bench/%: tests/bench/%.c $(lib) Makefile
	$(library_program)

build/tests/vm/%: tests/vm/%.c $(lib) Makefile
	$(library_program)

# Static: in the guest no page of a library may come from the host meanwhile.
build/tests/bench/walk/walk: $(walk_obj)
	$(CC) $(CFLAGS) -static -o $@ $(walk_obj) -luring -lpthread -lm

# The tests of the GPU tier without ASan: for threads, and for real devices.
GPU_SRC = $(lib_src) $(gather)
GPU_CC = nice $(CC) -std=gnu11 $(CPPFLAGS) -Itests -g -O1

tsan-gpu: $(gather)
	$(GPU_CC) -fsanitize=thread -o $(TSAN_OUT) tests/unit/gpu_threads.c \
		$(GPU_SRC) $(LIBS) -lm

plain-gpu: $(gather)
	for test in batch api faults memory threads; do \
		$(GPU_CC) -o $(PLAIN_OUT)/gpu_$$test \
			tests/unit/gpu_$$test.c $(GPU_SRC) $(LIBS) -lm || \
			exit 1; \
	done

build/tests/bench/net: tests/bench/net.c $(lib) Makefile
	@mkdir -p $(@D)
	$(CC) $(C11) $(CFLAGS) $(CPPFLAGS) -MT $@ -MF $@.d -o $@ $< \
		-Wl,-rpath,'$$ORIGIN/../..' -Lbuild -lmmnf -lnbd -lpthread

# Sees inside the library: what is measured has no public name.
build/tests/bench/gpu build/tests/bench/ssd: build/tests/bench/%: \
		tests/bench/%.c $(lib_obj) Makefile
	@mkdir -p $(@D)
	$(CC) $(C11) $(CFLAGS) $(CPPFLAGS) -MT $@ -MF $@.d -o $@ $< $(lib_obj) \
		$(LIBS)

# ---- what a newcomer runs

# make again after deps.sh: which kernel there is may only be known then.
deps:
	tests/deps.sh

check:
	tests/deps.sh build test lint
	$(MAKE) run-tests

check-vm:
	tests/deps.sh build test $(patsubst %,kernel-%,\
		$(filter 6.12 new debug,$(K)))
	$(MAKE) run-tests T="$(or $(T),lint/kernel-warnings kunit/* fuzz/abi \
		kselftest/* vm/*)"

lint:
	tests/deps.sh build test lint
	KVER=$(KVER) tests/run 'lint/*'

# On a real device; skips with the reason where there is none.
check-gpu:
	tests/deps.sh build test
	$(MAKE) run-tests T="unit/gpu* integration/gpu*"

# A cluster of Ceph on the loopback, as root; its packages stay installed.
check-ceph:
	tests/deps.sh build test ceph
	$(MAKE) all build/tests/unit/net_engine
	build/venv/bin/python tests/ceph/check.py
	KVER=$(KVER) build/venv/bin/python tests/ceph/kernel.py

# F=npy ...: those targets for S seconds each; what is found stays in build/fuzz.
# F=abi: N random uses of the device (a million, an hour in the debug kernel), from
# seed S.  All of libFuzzer's where F is not given.
F ?= $(notdir $(fuzz))
fuzz:
	tests/deps.sh build test lint $(patsubst %,kernel-%,\
		$(filter 6.12 new debug,$(K)))
	$(if $(filter abi,$(F)),MMNF_FUZZ_SEED=$(S) MMNF_FUZZ_N=$(N) \
		$(MAKE) run-tests T="-v -t 7200 fuzz/abi")
	$(MAKE) run-fuzz F="$(filter-out abi,$(F))"

run-fuzz: $(patsubst %,build/tests/fuzz/%,$(filter-out abi,$(F)))
	for f in $(F); do mkdir -p build/fuzz/corpus/$$f && \
		build/tests/fuzz/$$f -max_total_time=$(or $(S),60) -timeout=10 \
			-print_final_stats=1 -artifact_prefix=build/fuzz/ \
			build/fuzz/corpus/$$f $$(ls -d tests/fuzz/corpus/$$f) || exit 1; \
	done

bench:
	tests/deps.sh build test
	$(MAKE) run-bench

# The library beside others, wall time; 8 GiB of disk.
bench-lib:
	tests/deps.sh build test bench
	$(MAKE) all $(addprefix build/tests/bench/,lib cache threads)
	set -f; build/venv/bin/python tests/bench/lib.py $(T)

# The network beside a plain loop of libnbd, wall time.
bench-net:
	tests/deps.sh build test
	$(MAKE) lib build/tests/bench/net
	set -f; build/venv/bin/python tests/bench/net.py $(T)

quickstart:
	@tests/deps.sh build test quickstart
	@echo 'building library, tool and module: a minute or two'
	@$(MAKE) -s -j$$(nproc) all
	@$(MAKE) -s run-quickstart

run-tests: all programs $(if $(filter debug,$(K)),kunit)
	set -f; KVER=$(KVER) KVER_TOO=$(if $(TOO),$(notdir \
		$(wildcard build/kernels/$(TOO)/lib/modules/*))) tests/run $(T)

run-bench: all programs
	set -f; KVER=$(KVER) build/venv/bin/python tests/bench/run.py $(T)

run-quickstart: all
	KVER=$(KVER) build/venv/bin/python tests/quickstart.py

# ---- install

bindir := $(DESTDIR)$(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
UDEVDIR ?= /etc/udev/rules.d
libdir := $(DESTDIR)$(LIBDIR)
incdir := $(DESTDIR)$(PREFIX)/include
mandir := $(DESTDIR)$(PREFIX)/share/man
unitdir := $(DESTDIR)$(PREFIX)/lib/systemd/system
udevdir := $(DESTDIR)$(UDEVDIR)
usersdir := $(DESTDIR)$(PREFIX)/lib/sysusers.d
man := $(wildcard kmod/*.[1-9] lib/*.[1-9] tools/*.[1-9])
sharedir := $(DESTDIR)$(PREFIX)/share
completions := bash-completion/completions/mmnf zsh/site-functions/_mmnf \
	fish/vendor_completions.d/mmnf.fish
mandest = $(mandir)/man$(patsubst .%,%,$(suffix $(1)))/$(notdir $(1))
# `man mmnf_get` finds the page that has it.
man3 = $(mandir)/man3/$(1).3
functions = $(shell sed -n 's/^\.It Fn \(mmnf_[a-z0-9_]*\)$$/\1/p' lib/mmnf.3)
# After a staged install the package's own scripts do this.
define settle
	$(if $(DESTDIR),,-ldconfig)
	$(if $(DESTDIR),,-! command -v systemd-sysusers >/dev/null || systemd-sysusers)
	$(if $(DESTDIR),,-! command -v udevadm >/dev/null || udevadm control --reload)
endef

install: lib tools
	install -d $(bindir) $(libdir)/pkgconfig $(incdir)/linux \
		$(udevdir) $(unitdir)
	install -m 755 build/libmmnf.so.$(SOVERSION) $(libdir)
	ln -sf libmmnf.so.$(SOVERSION) $(libdir)/libmmnf.so
	install -m 644 include/mmnf.h $(incdir)
	install -m 644 include/uapi/linux/mmnf.h $(incdir)/linux
	sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@VERSION@|$(VERSION)|g' \
		-e 's|@LIBDIR@|$(LIBDIR)|g' \
		lib/mmnf.pc.in > $(libdir)/pkgconfig/mmnf.pc
	$(if $(tool),install -m 755 $(tool) $(bindir))
	install -m 644 tools/99-mmnf.rules $(udevdir)
	sed -e 's|@PREFIX@|$(PREFIX)|g' tools/mmnf-nbd@.service.in \
		> $(unitdir)/mmnf-nbd@.service
	install -D -m 644 tools/sysusers.conf $(usersdir)/mmnf.conf
	$(foreach c,$(completions),install -d $(sharedir)/$(dir $(c)) && \
		build/mmnf completion $(firstword $(subst -, ,$(subst /, ,$(c)))) \
		>$(sharedir)/$(c) &&) :
	$(foreach m,$(man),install -D -m 644 $(m) $(call mandest,$(m)) &&) :
	for f in $(functions); do ln -sf mmnf.3 $(call man3,$$f) || exit 1; done
	$(settle)

uninstall:
	rm -f $(bindir)/mmnf $(libdir)/libmmnf.so $(incdir)/mmnf.h \
		$(libdir)/libmmnf.so.$(SOVERSION) $(incdir)/linux/mmnf.h \
		$(libdir)/pkgconfig/mmnf.pc $(udevdir)/99-mmnf.rules \
		$(unitdir)/mmnf-nbd@.service \
		$(usersdir)/mmnf.conf \
		$(addprefix $(sharedir)/,$(completions)) \
		$(foreach m,$(man),$(call mandest,$(m))) \
		$(foreach f,$(functions),$(call man3,$(f)))
	$(settle)

# Debian packages in build/deb: a copy of the sources whose debian/ is tools/debian.
deb_src = build/deb/mmnf-$(VERSION)
deb:
	tests/deps.sh build deb
	rm -rf build/deb
	mkdir -p $(deb_src)
	cp -r --parents Makefile Kbuild dkms.conf README.md LICENSES include \
		kmod lib tools $(deb_src)
	find $(deb_src) -name __pycache__ -prune -exec rm -rf {} +
	cp -r tools/debian $(deb_src)
	printf 'mmnf (%s) unstable; urgency=medium\n\n  * Built from source.\n\n -- %s  %s\n' \
		'$(VERSION)' "$$(sed -n 's/^Maintainer: //p' tools/debian/control)" \
		"$$(date -R)" >$(deb_src)/debian/changelog
	cd $(deb_src) && dpkg-buildpackage -us -uc -b
	ls build/deb/*.deb

# A minimal Debian with nothing but those packages, in a guest.
check-deb: deb
	tests/deps.sh test deb
	KVER=$(KVER) tests/vm/deb.sh

# DKMS gets what the module needs and no more: `dkms add .` would copy build/.
DKMS ?= dkms
DKMS_SOURCES ?= /usr/src
MODULES_LOAD ?= /etc/modules-load.d
dkms_name := mmnf/$(VERSION)
dkms_src := $(DKMS_SOURCES)/mmnf-$(VERSION)
dkms_kernels := $(shell sed -n 's/^BUILD_EXCLUSIVE_KERNEL="\(.*\)"/\1/p' dkms.conf)

# Whatever version was there goes first.  Loaded at boot from then on.
dkms:
	@echo '$(KVER)' | grep -Eq '$(dkms_kernels)' || { echo "mmnf: kernel" \
		"'$(KVER)' is none of those that it is made for: 6.1 to 7.3" >&2; \
		exit 1; }
	$(call dkms_remove_all)
	install -d $(dkms_src)
	cp -r --parents Kbuild Makefile dkms.conf kmod lib/core include/uapi \
		LICENSES $(dkms_src)
	$(DKMS) add $(dkms_name)
	$(DKMS) install $(dkms_name) -k $(KVER)
	install -d $(MODULES_LOAD)
	echo mmnf >$(MODULES_LOAD)/mmnf.conf

dkms-remove:
	$(call dkms_remove_all)
	rm -f $(MODULES_LOAD)/mmnf.conf

# Its own list says which: "mmnf/0.1.0, 6.1.0-56-amd64, x86_64: installed".
define dkms_remove_all
	for v in $$($(DKMS) status -m mmnf | sed -n 's|^mmnf/\([^,: ]*\).*|\1|p' | \
			sort -u); do \
		$(DKMS) remove mmnf/$$v --all && \
		rm -rf "$(DKMS_SOURCES)/mmnf-$$v" || exit 1; \
	done
endef

clean:
	rm -rf build/deb build/lib build/tools build/asan build/tsan build/tests \
		build/kmod build/kunit \
		build/lint build/mmnf build/libmmnf.*

-include $(lib_src:%.c=build/%.d) $(asan_obj:.o=.d) $(tool_obj:.o=.d)
-include $(tsan_obj:.o=.d)
-include $(addsuffix .d,$(unit) $(kselftest) $(vm) $(bench) $(fuzz)) $(fuzz_obj:.o=.d)
-include $(walk_obj:.o=.d)
