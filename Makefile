# The front door; the work is done by Pants, which ./pants sets up by itself.
.DEFAULT_GOAL := help
.PHONY: help run test build_3_11 test_3_11 benchmark lock reproduce fmt clean

# numerai-predict's users forced a fresh build with DOCKER_BUILDKIT=0.
PANTS := ./pants $(if $(filter 0,$(DOCKER_BUILDKIT)),--no-local-cache)
EXAMPLE := dist/example

help: ## this list
	@grep -hE '^[a-z_0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: ## build images:py311, train an example model in it, and predict with it
	$(PANTS) --oci-entrypoint=/usr/bin/python3 run images:py311 -- examples/make_model.py $(EXAMPLE)
	@rm -f $(EXAMPLE)/live_predictions-*.csv
	./pants run images:py311 -- --model $(EXAMPLE)/model.pkl --dataset $(EXAMPLE)/live.parquet \
	  --benchmarks $(EXAMPLE)/live_benchmark_models.parquet --output_dir $(EXAMPLE)

test: ## lint, types and all tests, with the container engines they need
	build-support/with-engines build-support/check ::

build_3_11: ## build the Python 3.11 image, and load it where a Docker engine runs
	$(PANTS) package images:py311
	@if docker info > /dev/null 2>&1; then \
	  docker load --quiet --input dist/images/py311/image.tar; \
	else \
	  echo "No Docker engine answers: load dist/images/py311/image.tar where one does."; \
	fi

test_3_11: ## the tests of the Python 3.11 image
	build-support/with-engines $(PANTS) test images: tests::

benchmark: ## the predictor against a plain script, on the example that `make run` leaves
	$(PANTS) package images:py311
	build-support/with-engines python3 benchmarks/compare.py

lock: ## resolve Python and Debian packages anew, and export what is derived from them
	./pants run build-support/lock_python.py -- $(LOCK_ARGS)
	./pants run build-support/lock_debian.py

reproduce: ## build images:py311 twice, as two strangers would, and compare
	./pants run build-support/reproduce.py

fmt: ## format the code
	./pants fmt fix ::

clean: ## remove what was built and set up here; Pants' caches in the home folder stay
	rm -rf dist .setup .pants.d .pids
