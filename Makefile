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
.DELETE_ON_ERROR:

config ?= release
BUILD  ?= build/$(config)
CC     := $(if $(filter default,$(origin CC)),cc,$(CC))
AR     := $(if $(filter default,$(origin AR)),ar,$(AR))
PKGS   := openblas jansson libutf8proc zlib libcrypto
NET_PKGS := libcurl libmicrohttpd
TEST_PKGS := check libpcre2-8
comma  := ,
Q      := $(if $(V),,@)
-include Makefile.config
.PRECIOUS: $(BUILD)/%.o

PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
NET_LIBS   := $(shell pkg-config --libs $(NET_PKGS) 2>/dev/null)
CHECK_LIBS  = $(shell pkg-config --libs $(TEST_PKGS) 2>/dev/null)
ARCH       := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine 2>/dev/null)))

WARN   := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
          -Wpointer-arith -Wcast-qual -Wwrite-strings -Wvla -Wformat=2 -Wundef
BASE_FLAGS := -std=c11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -ffp-contract=off -DPCRE2_CODE_UNIT_WIDTH=8 -I. $(WARN) -fno-math-errno -pthread $(PKG_CFLAGS)

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
LIB_ROOMS := base kernels weights engine convert router net
rooms_of   = $(wildcard $(1)/*.c $(1)/ref/*.c $(if $(filter x86_64,$(ARCH)),$(1)/x86/*.c) $(if $(filter aarch64 arm64,$(ARCH)),$(1)/arm/*.c))
objs_of    = $(patsubst %.c,$(BUILD)/%.o,$(call rooms_of,$(1))) $(if $(filter net,$(1)),$(BUILD)/net/web_page.o)
CLI_OBJS  := $(patsubst %.c,$(BUILD)/%.o,$(wildcard cli/*.c bench/*.c))

# What a room stands on, itself first (link order).
STACK_base    := base
STACK_kernels := kernels base
STACK_weights := weights kernels base
STACK_engine  := engine weights kernels base
STACK_convert := convert engine weights kernels base
STACK_model   := convert engine weights kernels base
STACK_tokenizer := convert engine weights kernels base
STACK_router  := router convert engine weights kernels base
STACK_net     := net router convert engine weights kernels base
STACK_soak    := $(STACK_net)
STACK_cli     := net convert router engine weights kernels base
STACK_real    := net convert router engine weights kernels base
libs_of        = $(patsubst %,$(BUILD)/lib%.a,$(STACK_$(1)))

# Instruction sets by suffix; only these files may use more than the base ISA.
ifeq ($(ARCH),x86_64)
ISA_avx2   := -mavx2 -mfma -mf16c
ISA_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
ISA_avxvnni := $(ISA_avx2) -mavxvnni
ISA_avx512vnni := $(ISA_avx512) -mavx512vnni
else
ISA_dotprod := -march=armv8.2-a+dotprod
ISA_i8mm   := -march=armv8.2-a+dotprod+i8mm
endif
isa_of      = $(ISA_$(lastword $(subst _, ,$(basename $(notdir $(1))))))

all: tlr libtlr.a ## build ./tlr and libtlr.a

# The copies follow the flavour that was built last, whatever their dates say.
tlr libtlr.a: %: $(BUILD)/% FORCE
	$(Q)cmp -s $< $@ || cp -f $< $@
FORCE:

$(BUILD)/tlr: $(CLI_OBJS) $(call libs_of,cli)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(NET_LIBS) $(LIBS)

$(BUILD)/libtlr.a: $(call objs_of,engine) $(call objs_of,weights) $(call objs_of,kernels) $(call objs_of,base)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

define room_rules
$(BUILD)/lib$(1).a: $(call objs_of,$(1))
	$$(Q)rm -f $$@ && $(AR) rcs $$@ $$^
endef
$(foreach r,$(LIB_ROOMS),$(eval $(call room_rules,$(r))))

$(BUILD)/net/%.o: EXTRA := $(shell pkg-config --cflags $(NET_PKGS) 2>/dev/null)
$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(call isa_of,$<) $(EXTRA) -MMD -MP -c -o $@ $<

# Fuzzed bytes choose no branch in a kernel's variant, and clang instruments what
# is unrolled there for minutes: addresses are checked, edges are not counted.
ifeq ($(config),fuzz)
$(BUILD)/kernels/x86/%.o $(BUILD)/kernels/arm/%.o: EXTRA := -O0 -fno-sanitize=fuzzer-no-link
endif

# The page that tlr serve shows is a part of the program.
$(BUILD)/net/web_page.c: net/web/index.html scripts/embed.sh
	@mkdir -p $(@D)
	$(Q)sh scripts/embed.sh $< tlr_web_page >$@
$(BUILD)/net/web_page.o: $(BUILD)/net/web_page.c
	$(Q)$(CC) $(CFLAGS_ALL) -c -o $@ $<

# gcc 12 for arm64 fails inside its vectoriser on plain loops that tests check by.
ifneq ($(filter aarch64 arm64,$(ARCH)),)
$(BUILD)/tests/%.o: EXTRA := -fno-tree-vectorize
endif

# ---- tests -----------------------------------------------------------------
# SKIP_ROOMS="real ..." leaves rooms out: 640 tokens under a sanitizer take long.
TEST_ROOMS := $(filter-out soak $(SKIP_ROOMS),$(patsubst tests/%/suites.inc,%,$(wildcard tests/*/suites.inc)))
test-net: check-net ## the network room alone: wire formats and failing servers
soak-net: check-soak ## 10,000 escalations over a line of which a fifth fails (SOAK=N escalations)
check-soak: export TLR_SOAK := $(SOAK)
.PHONY: test-net soak-net

# Random models serve other rooms too.
TEST_MORE_router := tests/model/models.c
TEST_MORE_net := tests/router/tiny.c
TEST_MORE_soak := $(addprefix tests/,net/hash_llm.c net/loop.c net/server.c router/tiny.c)
SUPPORT_OBJS := $(patsubst %.c,$(BUILD)/%.o,$(filter-out tests/support/check_main.c,$(wildcard tests/support/*.c)))

define test_rules
$(BUILD)/tests/$(1)/check_main.o: tests/support/check_main.c tests/$(1)/suites.inc Makefile
	@mkdir -p $$(@D)
	$$(Q)$(CC) $(CFLAGS_ALL) -DSUITES='"tests/$(1)/suites.inc"' -DROOM='"$(1)"' -MMD -MP -c -o $$@ $$<
$(BUILD)/check_$(1): $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/$(1)/*.c) $(TEST_MORE_$(1))) $(BUILD)/tests/$(1)/check_main.o $(SUPPORT_OBJS) $(call libs_of,$(1))
	$$(Q)$(CC) $(LDFLAGS_ALL) -o $$@ $$^ $$(CHECK_LIBS) $$(if $$(filter net,$$(STACK_$(1))),$(NET_LIBS)) $(LIBS)
check-$(1): $(BUILD)/check_$(1)
	$(BUILD)/check_$(1)
.PHONY: check-$(1)
endef
$(foreach r,$(TEST_ROOMS) soak,$(eval $(call test_rules,$(r))))

check-rooms: $(addprefix check-,$(TEST_ROOMS))
check: check-rooms check-replay check-cli check-serve ## the tests of every room, with what is installed

test: ## install what is missing, fetch the real model, build and pass every test
	@sh scripts/install-deps.sh test
	@sh weights/fetch-model.sh smollm2-135m-instruct.gguf || echo "tests that need the real model are skipped" >&2
	@$(MAKE) --no-print-directory tlr
	@if [ -f models/smollm2-135m-instruct.gguf ]; then $(MAKE) --no-print-directory $(MODEL); fi
	@$(MAKE) --no-print-directory check
	@echo "all tests passed"

test-arm: ## install what is missing, build the tests for arm64 and run them under qemu
	@sh scripts/install-deps.sh arm
	@bash scripts/test-arm.sh

check-cli: $(BUILD)/tlr
	sh tests/cli/run.sh $(BUILD)/tlr

# The official clients of OpenAI, from the registries, for these tests alone.
clients: build/clients/python build/clients/node_modules ## fetch OpenAI's clients into build/clients, for check-serve
build/clients/python:
	python3 -m pip install --quiet --disable-pip-version-check --target $@ openai
build/clients/node_modules:
	@mkdir -p $(@D)
	! command -v npm >/dev/null || npm install --silent --no-audit --no-fund --prefix $(@D) openai

check-serve: $(BUILD)/tlr
	PYTHONPATH=build/clients/python python3 tests/serve/run.py $(BUILD)/tlr

test-web: ## install what is missing, make the pair, try the page of tlr serve in headless Chromium
	@sh scripts/install-deps.sh web || echo "tests that need chromium are skipped" >&2
	@$(MAKE) --no-print-directory pair
	python3 tests/web/run.py ./tlr

# Every fuzz target also replays its corpus without a fuzzer.
FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
$(BUILD)/replay_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/replay.o $(call libs_of,cli)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(NET_LIBS) $(LIBS)
check-replay: $(addprefix $(BUILD)/replay_,$(FUZZERS))
	@for f in $(FUZZERS); do $(BUILD)/replay_$$f tests/fuzz/corpus/$$f || exit 1; done
	@echo "replay: $(words $(FUZZERS)) passed, 0 failed"

FUZZ_SECONDS ?= 60
fuzz: ## run every fuzz target for FUZZ_SECONDS (60) under ASan and UBSan; needs clang
	@$(MAKE) --no-print-directory config=fuzz CC=clang fuzz-run FUZZ_SECONDS=$(FUZZ_SECONDS)
$(BUILD)/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(call libs_of,cli)
	$(Q)$(CC) -pthread -fsanitize=fuzzer,address,undefined $(LDFLAGS) -o $@ $^ $(NET_LIBS) $(LIBS)
fuzz-run: $(addprefix $(BUILD)/fuzz_,$(FUZZERS))
	@for f in $(FUZZERS); do \
	    mkdir -p $(BUILD)/corpus/$$f $(BUILD)/findings; \
	    echo "== fuzz_$$f: $(FUZZ_SECONDS) s"; \
	    $(BUILD)/fuzz_$$f -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
	        -artifact_prefix=$(BUILD)/findings/$$f- $(BUILD)/corpus/$$f tests/fuzz/corpus/$$f \
	        >$(BUILD)/fuzz_$$f.log 2>&1 || { tail -n 40 $(BUILD)/fuzz_$$f.log; exit 1; }; \
	    grep -E 'number_of_executed_units|new_units_added' $(BUILD)/fuzz_$$f.log; \
	done
	@echo "fuzz: $(words $(FUZZERS)) passed, 0 failed"

lint: ## the house rules that a script can check
	@sh scripts/lint.sh

# ---- speed -----------------------------------------------------------------
bench-peers: tlr ## time tlr beside the engines of the registries, in alternation (PEERS="--quick")
	python3 bench/peers/peers.py $(PEERS)

QUALITY_PYTHON ?= python3
bench-quality: tlr ## tlr's and llama.cpp's 4 and 8 bits beside f32 (QUALITY="--source M.gguf --data D --work W"; bench/quality/README.md)
	$(QUALITY_PYTHON) bench/quality/quality.py --tlr ./tlr $(QUALITY)

# What programs of their own share with tlr's own benchmarks.
BENCH_SHARED := $(addprefix $(BUILD)/,bench/random_model.o cli/blas.o)
WIRE_OBJS := $(addprefix $(BUILD)/bench/escalate/,loopback.o oracle.o)
$(BUILD)/bench_escalate: $(BUILD)/bench/escalate/escalate.o $(WIRE_OBJS) $(BENCH_SHARED) $(call libs_of,cli)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(NET_LIBS) $(LIBS)
$(BUILD)/same_text: $(BUILD)/bench/escalate/same_text.o $(WIRE_OBJS) $(call libs_of,cli)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(NET_LIBS) $(LIBS)
bench-escalate: $(BUILD)/bench_escalate ## time escalations over a loopback wire, JSON rows (ESCALATE="--rtt 50,170,500 --share 0.02,0.14")
	@$(BUILD)/bench_escalate $(ESCALATE)
QUESTIONS ?= ../shared/data/csqa_dev.jsonl
same-text: $(BUILD)/same_text models/csqa-slm.bin models/csqa-llm.bin ## 500 questions, waiting and running ahead: the same tokens (QUESTIONS=FILE)
	$(BUILD)/same_text $(SAME_TEXT) models/csqa-slm.bin models/csqa-llm.bin $(QUESTIONS)

$(BUILD)/bench_router: $(BUILD)/bench/router/router_bench.o $(BENCH_SHARED) $(call libs_of,cli)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)
bench-router: $(BUILD)/bench_router ## time training and deciding, JSON rows (ROUTER="--rows 100000")
	@$(BUILD)/bench_router $(ROUTER)

PROFILE ?= bench --random qwen2.5-0.5b --type q4 -p 512 -n 128
profile: tlr ## perf record + flame graph of a run (PROFILE="bench ..."); docs/profiling.md
	@sh scripts/profile.sh ./tlr $(PROFILE)

# ---- the demo --------------------------------------------------------------
MODEL := models/smollm2-135m-instruct.bin
DEMO_PROMPT := What is the capital of France, and what is it known for?

demo: ## install what is missing, build, fetch and convert the model, stream an answer
	@sh scripts/install-deps.sh run
	@sh weights/fetch-model.sh smollm2-135m-instruct.gguf
	@$(MAKE) --no-print-directory tlr
	@$(MAKE) --no-print-directory $(MODEL)
	./tlr run $(MODEL) "$(DEMO_PROMPT)" --stats

# Not remade when the converter changes: a model file stays valid, and the format
# version says when it does not.
$(MODEL): models/smollm2-135m-instruct.gguf | tlr
	./tlr convert $< -o $@
models/smollm2-135m-instruct.gguf:
	@sh weights/fetch-model.sh smollm2-135m-instruct.gguf

# ---- the measuring pair: a small model and the same one fine-tuned (bench/pair/README.md)
PAIR_ADAPTER := bench/pair/adapter/adapter_model.safetensors
PAIR_ROUTER  := bench/pair/router.bin

pair: ## install what is missing, fetch the base, make models/csqa-slm.bin (with its router) and models/csqa-llm.bin
	@sh scripts/install-deps.sh run
	@sh weights/fetch-model.sh smollm2-135m-instruct.gguf
	@$(MAKE) --no-print-directory tlr
	@$(MAKE) --no-print-directory models/csqa-slm.bin models/csqa-llm.bin

# A router that is newer makes the model anew: attaching is the last step of making it.
models/csqa-slm.bin: models/smollm2-135m-instruct.gguf $(wildcard $(PAIR_ROUTER)) | tlr
	./tlr convert $< -o $@ --type q8
	@if [ -f $(PAIR_ROUTER) ]; then set -x; ./tlr router attach $@ $(PAIR_ROUTER) || { rm -f $@; exit 1; }; fi
models/csqa-llm.bin: models/smollm2-135m-instruct.gguf $(PAIR_ADAPTER) | tlr
	./tlr convert $< -o $@ --type q8 --lora $(dir $(PAIR_ADAPTER))

# ---- installing ------------------------------------------------------------
prefix  ?= /usr/local
DESTDIR ?=
BIN      = $(DESTDIR)$(prefix)/bin
MAN      = $(DESTDIR)$(prefix)/share/man/man1
LIB      = $(DESTDIR)$(prefix)/lib
INC      = $(DESTDIR)$(prefix)/include/tlr
PUBLIC_HEADERS := engine/tlr.h engine/chat.h engine/generation.h engine/sampler.h engine/tokenizer.h \
    engine/vocab.h weights/model_file.h kernels/cpu.h kernels/quant.h base/err.h base/mem.h base/span.h

install: all ## install tlr, libtlr.a, headers, man page, completions (DESTDIR, prefix)
	install -d $(BIN) $(MAN) $(LIB) $(DESTDIR)$(prefix)/share/bash-completion/completions \
	    $(DESTDIR)$(prefix)/share/zsh/site-functions $(DESTDIR)$(prefix)/share/fish/vendor_completions.d
	install -m 755 tlr $(BIN)/tlr
	install -m 644 libtlr.a $(LIB)/libtlr.a
	for h in $(PUBLIC_HEADERS); do install -d $(INC)/$$(dirname $$h) && install -m 644 $$h $(INC)/$$h || exit 1; done
	install -d $(LIB)/pkgconfig
	printf 'Name: tlr\nDescription: runs language models\nVersion: %s\nCflags: -I%s/include/tlr -pthread\nLibs: -L%s/lib -ltlr -lm -pthread\nRequires: openblas jansson libutf8proc zlib libcrypto\n' \
	    "$$(./tlr --version | cut -d' ' -f2)" '$(prefix)' '$(prefix)' >$(LIB)/pkgconfig/tlr.pc
	./tlr --man >$(MAN)/tlr.1
	./tlr --completion bash >$(DESTDIR)$(prefix)/share/bash-completion/completions/tlr
	./tlr --completion zsh >$(DESTDIR)$(prefix)/share/zsh/site-functions/_tlr
	./tlr --completion fish >$(DESTDIR)$(prefix)/share/fish/vendor_completions.d/tlr.fish

uninstall: ## remove what install put there
	rm -rf $(BIN)/tlr $(MAN)/tlr.1 $(LIB)/libtlr.a $(LIB)/pkgconfig/tlr.pc $(INC) \
	    $(DESTDIR)$(prefix)/share/bash-completion/completions/tlr \
	    $(DESTDIR)$(prefix)/share/zsh/site-functions/_tlr \
	    $(DESTDIR)$(prefix)/share/fish/vendor_completions.d/tlr.fish

clean: ## remove what make built (models stay)
	$(Q)rm -rf build tlr libtlr.a

help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: FORCE all bench-peers bench-quality bench-escalate bench-router same-text profile check check-rooms check-cli check-serve check-replay clients test test-web test-arm fuzz fuzz-run lint demo pair install uninstall clean help

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
