# docker clocker: how it is built, checked and tried out. `make help` lists
# every target; scripts that do more than a line of work are in hack/.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

GO     ?= go
PREFIX ?= /usr/local

# What the programs say about themselves.
VERSION ?= $(or $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//'),0.1.0-dev)
COMMIT  ?= $(or $(shell git rev-parse --short=12 HEAD 2>/dev/null),unknown)$(shell git diff --quiet HEAD 2>/dev/null || echo -dirty)
DATE    ?= $(or $(shell git log -1 --format=%cI 2>/dev/null),unknown)
STAMP   := clocker.io/clocker/pkg/version

# Static, stripped, the same bytes for the same commit wherever it is built.
BUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false \
	-ldflags '-s -w -X $(STAMP).Version=$(VERSION) -X $(STAMP).Commit=$(COMMIT) -X $(STAMP).Date=$(DATE)'

# Tools are pinned and kept in .tools, beside the version they are of.
TOOLS         := .tools
GOTESTSUM     := $(TOOLS)/gotestsum-v1.13.0
GOLANGCI_LINT := $(TOOLS)/golangci-lint-v2.15.0

# The docker command: the machine's own, else one built from its Go module.
DOCKER_CLI := v29.9.3
DOCKER     := $(or $(shell command -v docker 2>/dev/null),bin/docker)

# Root installs for everyone, others for themselves. The plugin looks for the
# programs it carries to hosts in both places.
ifeq ($(shell id -u),0)
PLUGINS := $(DESTDIR)$(PREFIX)/lib/docker/cli-plugins
LIBDIR  := $(DESTDIR)$(PREFIX)/lib/clocker
else
OWN     := $(or $(DOCKER_CONFIG),$(HOME)/.docker)
PLUGINS := $(OWN)/cli-plugins
LIBDIR  := $(OWN)/lib/clocker
endif

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

##### Build

.PHONY: build
build: programs testbed $(if $(filter bin/docker,$(DOCKER)),bin/docker) ## Build everything into bin/

.PHONY: programs
programs: ## Build docker-clocker, clocker-net and clocker-vol into bin/
	@$(BUILD) -o bin/docker-clocker ./cli-plugin
	@$(BUILD) -o bin/clocker-net ./netplugin
	@$(BUILD) -o bin/clocker-vol ./volplugin

.PHONY: testbed
testbed: ## Build bin/testbed, which makes Docker hosts out of this machine
	@$(BUILD) -o bin/testbed ./e2e/testbed/cmd/testbed

# docker/cli has no go.mod, so Go takes it for a program of Go 1.16 unless told.
bin/docker: hack/docker/go.mod
	@echo 'no docker command here: building $(DOCKER_CLI) into bin/docker'
	@cd hack/docker && CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -o $(CURDIR)/$@ \
		-gcflags=github.com/docker/cli/cmd/docker=-lang=go1.26 \
		-ldflags '-s -w -X github.com/docker/cli/cli/version.Version=$(DOCKER_CLI:v%=%)' \
		github.com/docker/cli/cmd/docker

.PHONY: image
image: programs ## Build the image of controller and agent on the current engine, without any network
	$(DOCKER) build --build-arg VERSION=$(VERSION) --tag clocker.io/clocker:$(VERSION) .

.PHONY: generate
generate: ## Write docs/reference from the commands
	@$(GO) generate ./cli-plugin/...

.PHONY: install
install: programs ## Install the plugin for the docker command (PREFIX, DESTDIR)
	@install -d '$(PLUGINS)' '$(LIBDIR)'
	@install -m 0755 bin/docker-clocker '$(PLUGINS)/docker-clocker'
	@install -m 0755 bin/clocker-net bin/clocker-vol '$(LIBDIR)/'
	@echo 'installed $(PLUGINS)/docker-clocker and $(LIBDIR)/{clocker-net,clocker-vol}'
	@echo 'next: docker clocker init'

.PHONY: uninstall
uninstall: ## Remove what install put there; fleets go on running
	@rm -f '$(PLUGINS)/docker-clocker' '$(LIBDIR)/clocker-net' '$(LIBDIR)/clocker-vol'
	@rmdir '$(LIBDIR)' 2>/dev/null || true
	@echo 'removed $(PLUGINS)/docker-clocker and $(LIBDIR)'

##### Check

.PHONY: fmt
fmt: ## Format every Go file
	@git ls-files -co --exclude-standard '*.go' | xargs gofmt -w

.PHONY: fmt-check
fmt-check: ## Fail when a Go file is not formatted
	@files=$$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l); \
	if [ -n "$$files" ]; then echo 'not formatted, run make fmt:'; echo "$$files"; exit 1; fi

.PHONY: vet
vet: ## Run go vet
	@$(GO) vet ./...

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Run the linters of .golangci.yml
	@$(GOLANGCI_LINT) run ./...

.PHONY: needs
needs: ## Install what tests and demo need from Debian, saying so
	@hack/needs

.PHONY: prepare
prepare: needs testbed ## Make what testbeds are made from (once, cached)
	@bin/testbed prepare

.PHONY: test
test: needs build $(GOTESTSUM) ## Set up what the tests need and pass all of them, unit and end to end
	@GOTESTSUM=$(GOTESTSUM) hack/test unit e2e

.PHONY: unit
unit: needs $(GOTESTSUM) ## Run the unit tests under the race detector (PKG=./pkg/... for some)
	@GOTESTSUM=$(GOTESTSUM) PKG='$(PKG)' hack/test unit

.PHONY: e2e
e2e: needs build $(GOTESTSUM) ## Run the scenarios on a testbed (RUN=regexp for some)
	@GOTESTSUM=$(GOTESTSUM) RUN='$(RUN)' hack/test e2e

.PHONY: bench
bench: needs build ## Measure everything beside its rivals, and print a table of ratios (N=5 rounds, BENCH=regexp for some)
	@mkdir -p out
	@rm -f out/bench.txt
	@$(GO) test -run '^$$' -bench '$(or $(BENCH),.)' -benchtime $(or $(N),5)x -timeout 30m ./e2e | tee out/bench.txt
	@$(GO) test -run '^$$' -bench '$(or $(BENCH),.)' -p 1 -timeout 20m \
		$$(grep -rl --include='*_test.go' '^func Benchmark' . | grep -v '^./e2e/' | xargs -n1 dirname | sort -u) | \
		{ grep -v -e '^PASS$$' -e '^ok ' || true; } | tee -a out/bench.txt
	@hack/ratios out/bench.txt | tee out/ratios.txt

.PHONY: bench-scale
bench-scale: ## Play a large simulated fleet and print what each step took (HOSTS=1000 CONTAINERS=30000 APPLICATIONS=30)
	@mkdir -p out
	@$(GO) build -o out/scale ./e2e/scale/cmd/scale
	@out/scale -hosts $(or $(HOSTS),1000) -containers $(or $(CONTAINERS),30000) -applications $(or $(APPLICATIONS),30) | tee out/scale.txt

##### Try it out

.PHONY: demo
demo: needs testbed ## Three hosts on this machine, a fleet of them, an application on it
	@bin/testbed prepare --engine 28 & prepare=$$!; \
	$(MAKE) build || { kill $$prepare; exit 1; }; \
	wait $$prepare; examples/demo/demo up

.PHONY: demo-down
demo-down: testbed ## Take the demo away
	@examples/demo/demo down

##### Clean up

.PHONY: clean
clean: ## Remove what was built; testbeds and their cache stay (see bin/testbed)
	@rm -rf bin out $(TOOLS)

$(GOTESTSUM):
	@hack/tool $@ gotest.tools/gotestsum

$(GOLANGCI_LINT):
	@hack/tool $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
