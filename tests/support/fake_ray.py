"""A stand-in for Ray that computes in this process, call by call, and loses workers where it is told to."""

import random
from collections import Counter
from types import SimpleNamespace

import torch

from budc.compiler.workers.actor import About, own_versions
from budc.runtimes.sampling.devices import device_name


class RayActorError(Exception):
    pass


class Answer:
    """What a call will return: nothing is computed before somebody waits for it."""

    def __init__(self, actor, call):
        self.actor, self.call, self.value, self.done = actor, call, None, False

    def settle(self):
        if not self.done:
            self.done = True
            if self.actor.dead:
                self.value = RayActorError("the actor died")
                return
            try:
                self.value = self.call()
            except LostError as lost:
                self.actor.dead = True
                self.value = RayActorError(str(lost))


class LostError(Exception):
    """Raised by a task: its worker is lost."""


class Actor:
    def __init__(self, worker, node):
        self.worker, self.node, self.dead = worker, node, False

    def __getattr__(self, name):
        def remote(*given):
            return Answer(self, lambda: self.call(name, given))

        return SimpleNamespace(remote=remote)

    def call(self, name, given):
        if name == "about":
            return About(self.node, f"host-{self.node}", 1, device_name(torch.device("cpu")), own_versions())
        return getattr(self.worker, name)(*given)


class FakeRay:
    """As much of Ray as a pool uses. Workers go to `nodes` in turn; calls end in an order that `seed` draws."""

    exceptions = SimpleNamespace(
        RayError=Exception,
        RayActorError=RayActorError,
        NodeDiedError=RayActorError,
        WorkerCrashedError=RayActorError,
        OutOfMemoryError=RayActorError,
        ActorUnschedulableError=RayActorError,
    )

    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(
            NodeAffinitySchedulingStrategy=lambda node_id, soft: SimpleNamespace(node_id=node_id)
        )
    )

    def __init__(self, nodes=("a",), seed=0):
        self.nodes, self.rng, self.started = nodes, random.Random(seed), Counter()
        self.killed = []

    def remote(self, kind):
        return SimpleNamespace(
            options=lambda **given: SimpleNamespace(remote=lambda: self.start(kind, given))
        )

    def start(self, kind, given):
        strategy = given["scheduling_strategy"]
        node = (
            self.nodes[self.started.total() % len(self.nodes)] if strategy == "SPREAD" else strategy.node_id
        )
        self.started[node] += 1
        return Actor(kind(), node)

    def put(self, value):
        return value

    def wait(self, answers, num_returns=1, timeout=None):
        chosen = self.rng.sample(list(answers), num_returns)
        for answer in chosen:
            answer.settle()
        return chosen, [answer for answer in answers if answer not in chosen]

    def get(self, answers):
        if isinstance(answers, list):
            return [self.get(answer) for answer in answers]
        answers.settle()
        if isinstance(answers.value, RayActorError):
            raise answers.value
        return answers.value

    def kill(self, actor, no_restart):
        actor.dead = True
        self.killed.append(actor)
