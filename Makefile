# tlr - one Makefile.  `make help` lists the targets.
#
#   config=release|debug|asan|tsan|fuzz|coverage   objects in build/$(config)/
#   BUILD=DIR    another object folder           CC=clang    another compiler
#   V=1          show the commands
#
# A room is a folder; its objects make lib<room>.a; its tests make
# check_<room>.  Kernel flags follow from the file's suffix (house rule).

MAKEFLAGS += -r
.DEFAULT_GOAL := all
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:

config ?= release
BUILD  ?= build/$(config)
CC     := $(if $(filter default,$(origin CC)),cc,$(CC))
AR     := $(if $(filter default,$(origin AR)),ar,$(AR))
PKGS   := openblas jansson libpcre2-8 libutf8proc zlib libcrypto
comma  := ,
Q      := $(if $(V),,@)
-include Makefile.config

PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
CHECK_LIBS  = $(shell pkg-config --libs check 2>/dev/null)
ARCH       := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))

WARN   := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
          -Wpointer-arith -Wcast-qual -Wwrite-strings -Wvla -Wformat=2 -Wundef
BASE_FLAGS := -std=c11 -D_GNU_SOURCE -DPCRE2_CODE_UNIT_WIDTH=8 -I. $(WARN) -fno-math-errno -pthread $(PKG_CFLAGS)

FLAGS_release  := -O3 -g -DNDEBUG
FLAGS_debug    := -O0 -g
FLAGS_asan     := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
FLAGS_tsan     := -O1 -g -fsanitize=thread
FLAGS_coverage := -O0 -g --coverage
FLAGS_fuzz     := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -DTLR_FUZZ
ifeq ($(FLAGS_$(config)),)
$(error config=$(config) is none of release debug asan tsan fuzz coverage)
endif
CFLAGS_ALL := $(BASE_FLAGS) $(FLAGS_$(config)) $(CFLAGS)
LDFLAGS_ALL := -pthread $(filter -fsanitize% --coverage,$(subst fuzzer-no-link$(comma),,$(FLAGS_$(config)))) $(LDFLAGS)
LIBS       := $(PKG_LIBS) -lm

# ---- rooms -----------------------------------------------------------------
LIB_ROOMS := base kernels weights engine convert
rooms_of   = $(wildcard $(1)/*.c $(1)/ref/*.c $(if $(filter x86_64,$(ARCH)),$(1)/x86/*.c) $(if $(filter aarch64 arm64,$(ARCH)),$(1)/arm/*.c))
objs_of    = $(patsubst %.c,$(BUILD)/%.o,$(call rooms_of,$(1)))
CLI_OBJS  := $(patsubst %.c,$(BUILD)/%.o,$(wildcard cli/*.c bench/*.c))

# What a room stands on, itself first (link order).
STACK_base    := base
STACK_kernels := kernels base
STACK_weights := weights kernels base
STACK_engine  := engine weights kernels base
STACK_convert := convert engine weights kernels base
STACK_cli     := convert engine weights kernels base
libs_of        = $(patsubst %,$(BUILD)/lib%.a,$(STACK_$(1)))

# Instruction sets by suffix; only these files may use more than the base ISA.
ISA_avx2   := -mavx2 -mfma -mf16c
ISA_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
isa_of      = $(ISA_$(lastword $(subst _, ,$(basename $(notdir $(1))))))

all: tlr libtlr.a ## build ./tlr and libtlr.a

tlr: $(BUILD)/tlr
	$(Q)cp -f $< $@

$(BUILD)/tlr: $(CLI_OBJS) $(call libs_of,cli)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

libtlr.a: $(call objs_of,engine) $(call objs_of,weights) $(call objs_of,kernels) $(call objs_of,base)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

define room_rules
$(BUILD)/lib$(1).a: $(call objs_of,$(1))
	$$(Q)rm -f $$@ && $(AR) rcs $$@ $$^
endef
$(foreach r,$(LIB_ROOMS),$(eval $(call room_rules,$(r))))

$(BUILD)/kernels/ref/%.o: kernels/ref/%.c Makefile
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) -ffp-contract=off -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(call isa_of,$<) -MMD -MP -c -o $@ $<

# ---- tests -----------------------------------------------------------------
TEST_ROOMS := $(patsubst tests/%/suites.inc,%,$(wildcard tests/*/suites.inc))
SUPPORT_OBJS := $(patsubst %.c,$(BUILD)/%.o,$(filter-out tests/support/check_main.c,$(wildcard tests/support/*.c)))

define test_rules
$(BUILD)/tests/$(1)/check_main.o: tests/support/check_main.c tests/$(1)/suites.inc Makefile
	@mkdir -p $$(@D)
	$$(Q)$(CC) $(CFLAGS_ALL) -DSUITES='"tests/$(1)/suites.inc"' -DROOM='"$(1)"' -MMD -MP -c -o $$@ $$<
$(BUILD)/check_$(1): $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/$(1)/*.c)) $(BUILD)/tests/$(1)/check_main.o $(SUPPORT_OBJS) $(call libs_of,$(1))
	$$(Q)$(CC) $(LDFLAGS_ALL) -o $$@ $$^ $$(CHECK_LIBS) $(LIBS)
check-$(1): $(BUILD)/check_$(1)
	$(BUILD)/check_$(1)
.PHONY: check-$(1)
endef
$(foreach r,$(TEST_ROOMS),$(eval $(call test_rules,$(r))))

check: $(addprefix check-,$(TEST_ROOMS)) ## run the unit tests of every room

clean: ## remove what make built
	$(Q)rm -rf build tlr libtlr.a

help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: all check clean help

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
