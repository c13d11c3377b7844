"""Does again what a run did, in a throw-away copy and with recorded answers, and says where it comes out otherwise."""

from pydantic import Field

from stepgate.executors.base import Context, Done, Executor, Params

REPLAY = "replay"


class ReplayParams(Params):
    """Which run, and how closely to look."""

    run_id: str = Field(description="the run that is replayed")
    printed: bool = Field(default=True, description="false: what commands print is not compared")


class Replay(Executor[ReplayParams]):
    """Nobody is asked and no model is called: commands run again only as they were approved, and only in a sandbox."""

    type = REPLAY
    lasts = True
    reads_workspace = False
    internal = True
    summary = "Replays a run in a throw-away copy of its workspace and compares what every step gives."
    params = ReplayParams

    async def execute(self, context: Context, params: ReplayParams) -> Done:
        """Raises WorkspaceConflict or Conflict `cannot_fork`, with the paths, where the start cannot be made again, and
        IntegrityError where the run's journal does not hold.
        """
        return Done(await context.replaying.again(params.run_id, printed=params.printed))
