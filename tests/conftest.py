"""Hypothesis profiles, and the coverage of a run of the whole suite.

``--hypothesis-profile=nightly`` draws many more examples than the default.

A run of everything (``pytest`` without files, ``-k`` or ``-m``) also measures which lines and branches of the package it reaches, names
the files that fall short, and fails below the limit that pyproject.toml sets.
"""

from __future__ import annotations

import io
import os
from typing import Any

os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", ".pytest_cache/hypothesis")

import coverage
import pytest
from hypothesis import HealthCheck, settings

QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
settings.register_profile("default", max_examples=25, deadline=None, derandomize=True, suppress_health_check=QUIET)
settings.register_profile("nightly", max_examples=1000, deadline=None, suppress_health_check=QUIET)
settings.load_profile("default")


class Reach:
    """What a run of the whole suite reaches of the package."""

    def __init__(self, config: pytest.Config) -> None:
        self.measured = coverage.Coverage(config_file=str(config.rootpath / "pyproject.toml"))
        self.limit = float(self.measured.get_option("report:fail_under") or 0.0)
        self.share = 0.0
        self.measured.erase()
        self.measured.start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.measured.stop()
        self.measured.save()
        self.measured.combine()  # with what other processes have reached
        self.share = self.measured.report(file=io.StringIO())
        if session.exitstatus == pytest.ExitCode.OK and self.share < self.limit:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section(f"{self.share:.2f} % of lines and branches, of which {self.limit:g} % are asked for")
        if self.share < self.limit:
            text = io.StringIO()
            self.measured.report(file=text)
            terminalreporter.write(text.getvalue())


def pytest_configure(config: pytest.Config) -> None:
    options = config.option
    parallel = getattr(options, "numprocesses", None) or hasattr(config, "workerinput")
    some = config.args_source is not pytest.Config.ArgsSource.TESTPATHS or options.keyword or options.markexpr or options.collectonly
    if not (some or parallel or coverage.Coverage.current()):  # if someone else is measuring, let them
        config.pluginmanager.register(Reach(config))
