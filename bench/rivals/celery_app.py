"""`celery --app bench.rivals.celery_app worker`: the worker's program."""

from celery import Celery

from bench.rivals import deeds

app = Celery(broker=deeds.url().replace("unix:", "redis+socket:"))
# Late acknowledgement is what keeps a task that a dying worker has taken.
app.conf.update(task_acks_late=True, task_ignore_result=True)
tasks = [app.task(deed, name=deed.__name__) for deed in deeds.ALL]
