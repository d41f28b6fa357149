# The short way in; CMake does the work. `make help` lists what there is.

.POSIX:
.PHONY: help build demo test test-long install-deps format clean

help:
	@echo 'make demo          install what is missing, build, train a model larger than its memory'
	@echo 'make test          install what is missing, build, run the tests'
	@echo 'make test-long     the same with the long forms of the tests'
	@echo 'make build         install what is missing, build into build/release/bin'
	@echo 'make install-deps  only install what is missing (apt; sudo unless root)'
	@echo 'make format        clang-format all sources'
	@echo 'make clean         remove build/'

install-deps:
	@sh tools/install_deps.sh

build: install-deps
	cmake --preset release
	cmake --build --preset release

demo: build
	@sh tools/demo.sh

test: install-deps
	@sh tools/test.sh

test-long: install-deps
	@sh tools/test.sh long

format:
	@sh tests/style/check_format.sh . fix

clean:
	rm -rf build
