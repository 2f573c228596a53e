# Two commands do all: `make run` shows the emulator, `make test` passes the tests. The rest is for those who change it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# pytest's workers: one per core, but no more than the two that CI has.
JOBS   ?= 2

.DELETE_ON_ERROR:
.PHONY: run test check lint types nightly guests gallery kernels linux bench real clean

run: $(VENV)/installed
	$(BIN)/psci-emu demo versions

test: $(VENV)/installed
	$(BIN)/pytest -n $(JOBS)

check: lint types test

lint: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/installed
	$(BIN)/mypy

nightly: $(VENV)/installed .cache/dt-schema.json
	$(BIN)/pytest -n $(JOBS) -m nightly

# Rebuild the guests' images, bit for bit, with Debian's gcc-aarch64-linux-gnu.
guests:
	$(MAKE) -C guests

# Run every guest of the gallery on every host and version, and write docs/gallery.md.
gallery: $(VENV)/installed
	$(BIN)/python -m tests.gallery

# Debian's arm64 kernel and a static busybox, into the ignored .cache/kernels; nothing of theirs is committed.
kernels: $(VENV)/installed
	$(BIN)/python -m tests.kernels

# Debian's kernel to a shell, on four CPUs started through PSCI.
linux: kernels
	$(BIN)/python -m tests.initramfs
	$(BIN)/psci-emu run -kernel .cache/kernels/Image -initrd .cache/initramfs.cpio -append "console=ttyAMA0 quiet" -smp 4 -m 512M

bench: $(VENV)/installed
	$(BIN)/python -m tests.bench

# Install what the tests compare with; without it those tests are skipped. Debian, as root.
real:
	apt-get update
	apt-get install --yes --no-install-recommends qemu-system-arm u-boot-qemu gcc-aarch64-linux-gnu device-tree-compiler

clean:
	rm -rf $(VENV) build dist .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --config-settings editable_mode=compat --editable '.[dev]'
	touch $@

# The bindings that a kernel's own tools hold a device tree against (Debian's linux-source-6.1, as root).
.cache/dt-schema.json: $(VENV)/installed
	$(BIN)/pip install --quiet --config-settings editable_mode=compat --editable '.[nightly]'
	test -e /usr/src/linux-source-6.1.tar.xz || apt-get install --yes --no-install-recommends linux-source-6.1
	mkdir -p .cache/linux
	tar xJf /usr/src/linux-source-6.1.tar.xz -C .cache/linux --strip-components=1 linux-source-6.1/Documentation/devicetree
	cd .cache/linux && $(CURDIR)/$(BIN)/dt-mk-schema -j -o ../dt-schema.json Documentation/devicetree/bindings
	rm -r .cache/linux
