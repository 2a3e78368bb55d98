# From a trial to a change request.
from __future__ import annotations

import click

from clients.control.types import NewTrialProposal
from controlplane.cli import options
from controlplane.cli.change import apply_change, emit_change
from controlplane.cli.pages import cost
from controlplane.cli.session import Session, Verb, pass_session, say
from controlplane.cli.sweep import sweep_and_trial


@click.command(cls=Verb)
@click.argument("name", metavar="SWEEP[.TRIAL]")
@options.environment
@click.option("--reason", default="", help="Why; it is part of what is approved. Default: what the sweep found.")
@click.option("--hypothesis", default="", help="What you believe it will do; default: the answer's reason.")
@click.option("--expected-effect", default="", help="What you will see; default: the figures with their intervals.")
@options.acknowledge
@click.option("--apply", "apply_now", is_flag=True, help="Apply it at once, where the policy needs no approval.")
@options.waiting
@pass_session
def propose(
    session: Session,
    /,
    *,
    name: str,
    env: str,
    acknowledge: tuple[str, ...],
    apply_now: bool,
    wait: bool,
    timeout: float,
    **said: str,
) -> None:
    """Propose a trial as a change, with what was measured of it as evidence.

    Without TRIAL it is the one that the sweep chose. The change is an ordinary one: its plan, gates and approvals are those of the
    environment, whose policy may ask for such evidence.
    """
    number, trial = sweep_and_trial(name)
    proposal = NewTrialProposal(environment=env, trial=trial, acknowledge=acknowledge, **said)
    made = session.client.sweeps.propose(number, proposal)
    say(f"proposed change {made.summary.id}: {cost(made.plan)}")
    if apply_now:
        apply_change(session, made.summary.id, None, wait=wait, timeout=timeout)
        return
    emit_change(session, made)
