"""`yolact label` up to the point where there is work to do: options, lake, identity, finished runs, lease.

The work itself is in `jobs.label.labelling`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from jobs import lake, storage
from jobs.label.identity import make_identity
from jobs.label.lease import Lease
from jobs.label.manifest.listing import finished_run
from jobs.label.options import LabelConfig, check_options
from jobs.label.run_end import RunEnd
from jobs.lake import ParquetColumns
from jobs.runtime.errors import EXIT_RUN_AGAIN, JobError, exit_code_for_failures
from jobs.runtime.interrupts import stopped_by_sigterm
from jobs.runtime.logs import configure_logging
from jobs.runtime.model_source import ModelSource, resolve_model
from jobs.table import record as run_record
from jobs.table.output import Output
from jobs.table.policy import Policy
from jobs.table.policy_file import read_policy
from jobs.table.record import RunRecord

if TYPE_CHECKING:
    from jobs.label.pipeline.stages import UnitPredictor


def label_lake(config: LabelConfig, *, make_predictor: Callable[[int], UnitPredictor] | None = None) -> RunEnd:
    """What `jobs.label.run` does, but for what that prints at the end.

    Needs neither torch nor Ray to see that a finished run has nothing to do.

    `make_predictor` takes the place of the model's own predictor, for measurements: a function or class of a module,
    called in each actor with its CPU threads. It is part of the run's identity, so that its rows never mix with labels.
    """
    configure_logging(config.log_format)
    check_options(config)
    output = Output.at(config.output)
    try:
        for folder in (output.uri, *lake.folders_of(config.inputs)):
            storage.check_reachable(folder)
        passed_over: Counter[str] = Counter()
        sources = lake.expand_inputs(
            config.inputs,
            exclude=output.uri,
            ignored=passed_over,
            any_name=config.any_name,
            columns=ParquetColumns(config.image_column, config.id_column),
        )
        lake.PassedOver(passed_over).report()
        model = resolve_model(config.config, config.weights)
        policy = policy_of(config, model)
        identity = make_identity(config, model, policy)
        if make_predictor is not None:
            identity["predictor"] = f"{make_predictor.__module__}.{make_predictor.__qualname__}"
        configure_logging(config.log_format, run_record.run_id(output, identity))
        record = run_record.read(output)
        if record is not None:
            run_record.check_identity(output, record, identity)
        if finished := finished_run(output, sources, config.relabel_changed):
            code = exit_code_for_failures(finished["failed"], finished["images"], config.max_error_rate)
            return RunEnd(code, f"nothing to do: {output.uri} is finished\n{finished['summary']}")
        with stopped_by_sigterm(), Lease(output.lease) as lease:
            # read again: another driver may have been at work until the lease was free
            record = run_record.read(output)
            if record is not None:
                run_record.check_identity(output, record, identity)
            begun = replace(record or RunRecord(), passed_over=dict(passed_over))
            # torch's import and the weights take as long as Ray, whose start mostly waits for processes
            loading = ThreadPoolExecutor(1).submit(model.load)
            # imports Ray, which a finished run does not need
            from jobs.label.labelling import LabelRun, RunInputs

            inputs = RunInputs(config, output, sources, model, identity, make_predictor, policy)
            try:
                return LabelRun(inputs, begun, lease).run(loading)
            except JobError:
                # a driver that took over may have removed what this one wanted to read: then this says so
                lease.check()
                raise
    except storage.TransientStorageError as error:
        return RunEnd(EXIT_RUN_AGAIN, complaint=f"yolact: {error}; run the same command again")


def policy_of(config: LabelConfig, model: ModelSource) -> Policy | None:
    """The policy that `config` names, for the classes of the model. Raises `UsageError` where it does not fit them."""
    if config.policy is None:
        return None
    what = f"the model {model.config.name}"
    return read_policy(config.policy).resolve(model.config.class_names, what, config.score_threshold)
