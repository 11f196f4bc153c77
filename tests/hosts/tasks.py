"""A Celery application that tracks an event in each task, and hands itself a number of them when it is ready."""

from application import track
from celery import Celery
from celery.signals import worker_ready

app = Celery("tasks", broker="memory://", task_ignore_result=True, worker_hijack_root_logger=False)
track_in_task = app.task(track, name="track")
track("at import")


@worker_ready.connect
def hand_over(**_):
    for number in range(40):
        track_in_task.delay(number)
