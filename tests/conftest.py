"""Hypothesis profiles, and the coverage of a run of the whole suite.

``--hypothesis-profile=nightly`` draws many more examples than the default.

A run of everything (``pytest`` without files, ``-k`` or ``-m``) takes all cores, where pytest-xdist is installed (``-n 0`` takes one), and
measures which lines and branches of the package it reaches: it names the files that fall short, and fails below the limit that
pyproject.toml sets. Measuring more than doubles the time that Python code takes on Python 3.11, so a run of some tests does not measure.
"""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Generator
from typing import Any

os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", ".pytest_cache/hypothesis")

import coverage
import pytest
from hypothesis import HealthCheck, settings

QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
settings.register_profile("default", max_examples=25, deadline=None, derandomize=True, suppress_health_check=QUIET)
settings.register_profile("nightly", max_examples=1000, deadline=None, suppress_health_check=QUIET)
settings.load_profile("default")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Reach:
    """What a run of the whole suite reaches of the package, in this process and in all that it starts."""

    def __init__(self, config: pytest.Config) -> None:
        self.measured = coverage.Coverage(config_file=str(config.rootpath / "pyproject.toml"))
        self.limit = float(self.measured.get_option("report:fail_under") or 0.0)
        self.share = 0.0
        self.measured.erase()
        self.measured.start()

    @pytest.hookimpl(wrapper=True, trylast=True)  # after the workers have gone, before the summary
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        yield
        self.measured.stop()
        self.measured.save()
        self.measured.combine()
        self.share = self.measured.report(file=io.StringIO())
        if session.exitstatus == pytest.ExitCode.OK and self.share < self.limit:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section(f"{self.share:.2f} % of lines and branches, of which {self.limit:g} % are asked for")
        if self.share < self.limit:
            text = io.StringIO()
            self.measured.report(file=text)
            terminalreporter.write(text.getvalue())


def is_whole(config: pytest.Config) -> bool:
    """Whether everything is to run: no files, names or marks are asked for."""
    options = config.option
    some = config.args_source is not pytest.Config.ArgsSource.TESTPATHS or options.keyword or options.markexpr or options.collectonly
    return not some and "PYTEST_XDIST_WORKER" not in os.environ


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Everything takes all cores."""
    options = config.option
    if is_whole(config) and getattr(options, "numprocesses", 0) is None and not options.usepdb:
        options.numprocesses = "auto"


def pytest_configure(config: pytest.Config) -> None:
    if is_whole(config) and not coverage.Coverage.current():  # if someone else is measuring, let them
        config.pluginmanager.register(Reach(config))
