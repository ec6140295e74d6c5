# make demo   from a fresh clone to predictions on the demo clip, with `export --int8` on the way
# make test   from a fresh clone to a green test suite
# Both set themselves up: a virtual environment in .venv, and system packages by apt when root.

PYTHON ?= python3
BIN := .venv/bin
SYSTEM := pulseaudio pulseaudio-utils libasound2-plugins libportaudio2 espeak-ng flite festival festvox-kdlpc16k strace chromium gcc libc6-dev \
	python3-opencv gstreamer1.0-plugins-base faketime python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good
# The native engine's C on an ARM processor, emulated: from an x86-64 only.
ifeq ($(shell uname -m),x86_64)
SYSTEM += gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
endif

.PHONY: demo test check system clean

demo: .venv/train.stamp
	$(BIN)/clcr-edge export --int8 --out out/digits-bundle
	$(BIN)/clcr-edge run out/digits-bundle --camera examples/demo.mp4 --mic examples/demo.mp4

test: system .venv/dev.stamp
	$(BIN)/python -m pytest -q

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy

# torch first and by its exact version: a range would fetch gigabytes of CUDA packages.
.venv/base.stamp: constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt torch==2.13.0
	touch $@

.venv/train.stamp: .venv/base.stamp pyproject.toml
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[train,audio]'
	touch $@

.venv/dev.stamp: .venv/base.stamp pyproject.toml
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@ .venv/train.stamp

# The live tests need a sound server, a synthesiser, a browser, an OpenCV with GStreamer and a clock that can be set; the native engine and TensorRT's names a C compiler. Without root: one line that names them.
system:
	@missing=""; for p in $(SYSTEM); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get -o DPkg::Lock::Timeout=300 update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $$missing >/dev/null; \
	else \
	  echo "clcr-edge: the live tests need these system packages; without them they are skipped and say so:$$missing"; \
	fi

clean:
	rm -rf .venv out build dist *.egg-info
