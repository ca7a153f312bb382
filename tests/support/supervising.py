"""A supervisor to talk to: a clock that the test turns, and the last state told of each launch."""

from viscript.rules import Probe, RestartRule
from viscript.supervision.events import Action, Changed, Event, Ready, Spawned, Start
from viscript.supervision.launch import Launch
from viscript.supervision.states import State
from viscript.supervision.supervisor import Supervisor

BUS = Probe("bus")
ALWAYS = RestartRule("always")
ON_FAILURE = RestartRule("on-failure")


class Talk:
    """A supervisor, a clock and the last state told of each launch."""

    def __init__(self, jitter: float = 1.0) -> None:
        self.supervisor = Supervisor(lambda: jitter)
        self.now = 0.0
        self.told: dict[int, Launch] = {}

    def say(self, event: Event) -> list[Action]:
        return self._keep(self.supervisor.handle(event, self.now))

    def pass_time(self, seconds: float) -> list[Action]:
        actions: list[Action] = []
        end = self.now + seconds
        while (due := self.supervisor.next_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            actions += self._keep(self.supervisor.handle_timer(self.now))
        self.now = end
        return actions

    def _keep(self, actions: list[Action]) -> list[Action]:
        self.told |= {a.launch.id: a.launch for a in actions if isinstance(a, Changed)}
        return [action for action in actions if not isinstance(action, Changed)]

    def state(self, number: int = 1) -> State:
        return self.told[number].state

    def running(self, launch: Launch) -> None:
        """Bring a launch to RUNNING."""
        self.say(Start(launch))
        self.say(Spawned(launch.id, 1))
        self.say(Ready(launch.id))
        assert self.state(launch.id) is State.RUNNING
