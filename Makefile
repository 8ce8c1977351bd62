# A front for CMake: `make` builds release into build/. See docs/hacking.md.
BUILD ?= build

all: deps
	cmake --preset release -B $(BUILD) >/dev/null
	cmake --build $(BUILD)

deps:
	@scripts/install-deps.sh

run: all
	$(BUILD)/kelda vm --disk kelda.disk --create 4G

test: all
	cd $(BUILD) && ctest --output-on-failure

# For work between commits: every layer as a process, a short boot, the tree's own rules. Not a replacement for `make test`.
check: all
	cd $(BUILD) && ctest -L '^check$$' -j 2 --output-on-failure

soak: all
	cd $(BUILD) && ctest -C soak -L soak --output-on-failure --timeout 14400

lib: deps
	cmake --preset lib >/dev/null
	cmake --build --preset lib

clean:
	rm -rf build build-*

.PHONY: all deps run test check soak lib clean
