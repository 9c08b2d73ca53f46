# The front door; the work is done by Pants, which ./pants sets up by itself.
.DEFAULT_GOAL := help

# The one list of Python versions is pyproject.toml's: 3.10 becomes build_3_10 and test_3_10.
PYTHONS := $(shell sed -n 's/.*"Programming Language :: Python :: \(3\.[0-9]*\)".*/\1/p' pyproject.toml)
MINORS := $(PYTHONS:3.%=%)
BUILDS := $(MINORS:%=build_3_%)
TESTS := $(MINORS:%=test_3_%)
LATEST := $(MINORS:%=push_latest_3_%)
STABLE := $(MINORS:%=push_stable_3_%)

.PHONY: help run test kubernetes test_full build $(BUILDS) $(BUILDS:%=%_full) build_shell $(TESTS) pythons notebook_pickle benchmark benchmark_fleet benchmark_swarm lock mirror parity digests sizes \
  vulnerability_db vulnerabilities push_latest push_stable $(LATEST) $(STABLE) reproduce verify shared_builds fmt clean

# numerai-predict's users forced a fresh build with DOCKER_BUILDKIT=0.
PANTS := ./pants $(if $(filter 0,$(DOCKER_BUILDKIT)),--no-local-cache)
EXAMPLE := dist/example
PARITY := dist/parity
COMPARED := $(or $(filter $(PYTHON),$(PYTHONS)),$(PYTHONS))
TRIED := $(COMPARED:%=$(PARITY)/%.json)
BUILT = $(wildcard dist/images/*/image.json)

help: ## this list
	@{ sed -nE 's/^([a-z_0-9]+):.*## /\1\t/p' $(MAKEFILE_LIST); \
	for minor in $(MINORS); do \
	  printf 'build_3_%s\tbuild the Python 3.%s image, and load it\n' $$minor $$minor; \
	  printf 'build_3_%s_full\tthe same with torch, TensorFlow, JAX and their like\n' $$minor; \
	  printf 'test_3_%s\tthe tests of the Python 3.%s image\n' $$minor $$minor; \
	  for tag in latest stable; do \
	    printf 'push_%s_3_%s\tpush the Python 3.%s images alone\n' $$tag $$minor $$minor; \
	  done; \
	done; } | expand -t 18

run: ## build images:py311, train an example model in it, and predict with it
	$(PANTS) --oci-entrypoint=/usr/bin/python3 run images:py311 -- examples/make_model.py $(EXAMPLE)
	@rm -f $(EXAMPLE)/live_predictions-*.csv
	./pants run images:py311 -- --model $(EXAMPLE)/model.pkl --dataset $(EXAMPLE)/live.parquet \
	  --benchmarks $(EXAMPLE)/live_benchmark_models.parquet --output_dir $(EXAMPLE)

test: ## lint, types and all tests but test_full's, with the container engines they need
	build-support/with-engines build-support/check :: --tag=-large

kubernetes: ## build the Kubernetes that the fleet's tests start, once (on Debian bookworm)
	build-support/kubernetes/build

# One after the other: each wants some 25 GB of disk while it runs.
test_full: ## the tests of the full images, of every Python
	for python in $(MINORS:%=py3%); do \
	  build-support/with-engines $(PANTS) test images:$$python-full tests/models:$$python-full || exit; \
	done

build: $(BUILDS) ## build every image, and load them where a Docker engine runs

$(BUILDS): build_3_%:
	$(PANTS) --oci-platform=host package images:py3$*
	@$(call load,py3$*)

$(BUILDS:%=%_full): build_3_%_full:
	$(PANTS) --oci-platform=host package images:py3$*-full
	@$(call load,py3$*-full)

build_shell: ## build the Python 3.11 image with a shell in it, for debugging, and load it
	$(PANTS) --oci-platform=host package images:shell
	@$(call load,shell)

define load
if docker info > /dev/null 2>&1; then \
  docker load --quiet --input dist/images/$(1)/image.tar; \
else \
  echo "No Docker engine answers: load dist/images/$(1)/image.tar where one does."; \
fi
endef

# What users meet whatever the version is tested with the image of Debian's own Python.
$(TESTS): test_3_%:
	build-support/with-engines $(PANTS) test images:py3$* src/numerai_predict:py3$*-tests tests:py3$* tests/models:py3$* \
	  $(if $(filter 11,$*),tests:tests tests:s3 tests:verdicts tests/hostile::)

# Full images as well. Where to, without REGISTRY=, is said in build-support/push.
push_latest: ## publish all images of the commit that is checked out, as latest, to REGISTRY=registry.example/numerai
	build-support/push latest images:

push_stable: ## the same, as stable
	build-support/push stable images:

$(LATEST): push_latest_3_%:
	build-support/push latest images:py3$* images:py3$*-full

$(STABLE): push_stable_3_%:
	build-support/push stable images:py3$* images:py3$*-full

build_% test_% push_%:
	@echo "There is no $@, only: $(BUILDS) build_shell push_latest push_stable $(LATEST) $(STABLE) $(TESTS)" >&2; exit 2

pythons: ## the Python versions, as JSON
	@printf '"%s"\n' $(PYTHONS) | paste -s -d , - | sed 's/.*/[&]/'

notebook_pickle: ## run NOTEBOOK=path.ipynb in an image's packages; the pickle it makes is kept (docs/predict.md)
	$(if $(NOTEBOOK),,$(error notebook_pickle needs NOTEBOOK=path.ipynb))
	@./pants run build-support/notebook_pickle.py -- \
	  "$(NOTEBOOK)" $(if $(PYTHON),--python "$(PYTHON)") $(if $(FLAVOUR),--flavour "$(FLAVOUR)") \
	  $(if $(OUTPUT),--output "$(OUTPUT)")

benchmark: ## the predictor against a plain script, on the example that `make run` leaves; the full image, if built
	$(PANTS) package images:py311
	build-support/with-engines python3 benchmarks/compare.py

benchmark_fleet: ## numerai-fleet against a shell loop of `docker run` (FLEET_ARGS=--help)
	$(PANTS) package images:py311 src/numerai_fleet:numerai-fleet
	build-support/with-engines python3 benchmarks/fleet.py $(FLEET_ARGS)

benchmark_swarm: ## numerai-fleet on one, two and three nodes of a Swarm, all on this machine (FLEET_ARGS=--help)
	$(PANTS) package images:py311 src/numerai_fleet:numerai-fleet
	PYTHONPATH=tests build-support/with-engines python3 benchmarks/fleet_swarm.py $(FLEET_ARGS)

parity: $(if $(filter 0,$(IMPORT)),,$(TRIED)) ## numerai-predict's packages in our images (PYTHON=3.11; IMPORT=0: nothing is built and imported)
	./pants run build-support/parity.py -- $(COMPARED) $(if $(filter 0,$(IMPORT)),,--imports $(PARITY))

.PHONY: $(TRIED)
$(TRIED): $(PARITY)/3.%.json:
	@mkdir -p $(PARITY)
	$(PANTS) --oci-entrypoint=/usr/bin/python3 run images:py3$*-full -- build-support/importable.py $@

lock: ## resolve Python and Debian packages anew, and export what is derived from them
	./pants run build-support/lock_python.py -- $(LOCK_ARGS)
	./pants run build-support/lock_debian.py

mirror: ## copy the Debian packages and interpreters that the locks name into FOLDER=path (docs/mirror.md)
	$(if $(FOLDER),,$(error mirror needs FOLDER=path))
	@./pants run build-support/mirror.py -- "$(abspath $(FOLDER))"

digests: ## build all images, and write the digests of those made of pins to images/digests.json
	rm -rf dist/images
	$(PANTS) --tag=-large package images::
	.setup/current/venv/bin/python build-support/digests.py dist/images/*/image.json

sizes: ## layers, packages and sizes of the images that were built (dist/images)
	@if [ -z "$(BUILT)" ]; then \
	  echo "No image was built yet: ./pants package images:py311 makes one, make build all." >&2; exit 1; \
	fi
	@.setup/current/venv/bin/python build-support/sizes.py $(BUILT)

vulnerability_db: ## fetch OSV's advisories, 2 files, into DB=folder (docs/vulnerabilities.md)
	@./pants run build-support/vulnerability_db.py -- $(if $(DB),--database "$(DB)")

vulnerabilities: ## what is known against the packages of the images in dist/images, or of SBOM=file.cdx.json (DB=folder)
	@./pants run build-support/vulnerabilities.py -- $(SBOM) $(if $(DB),--database "$(DB)") \
	  $(if $(FAIL_ON),--fail-on "$(FAIL_ON)") $(if $(JSON),--json)

reproduce: ## build images:py311 twice, as two strangers would, and compare
	./pants run build-support/reproduce.py

verify: ## rebuild IMAGE=image.tar, or a name in a registry, from the commit that it names, and compare (docs/verify.md)
	$(if $(IMAGE),,$(error verify needs IMAGE=, an image.tar or the name of an image in a registry))
	@./pants run build-support/verify.py -- "$(IMAGE)" $(if $(REF),--ref "$(REF)") $(if $(TARGET),--target "$(TARGET)") \
	  $(if $(PLATFORM),--platform "$(PLATFORM)") $(if $(filter 1,$(CACHE)),--cache) \
	  $(if $(filter 1,$(PLAIN_HTTP)),--plain-http) \
	  $(if $(filter 1,$(REBUILD_ANYWAY)),--rebuild-anyway)

shared_builds: ## build images:py311, and get it from a shared cache on a second, empty machine (some 4 min)
	./pants run build-support/shared_builds.py

fmt: ## format the code
	./pants fmt fix ::

clean: ## remove what was built and set up here; Pants' caches in the home folder stay
	rm -rf dist .setup .pants.d .pids
