"""The verbs of the kit: `invoke --list` shows them, `invoke --help VERB` explains one."""

from invoke import Collection

from kit.tasks import data, kernel, project, runs, start, submissions, view

namespace = Collection(
    data.download,
    data.explore,
    data.audit,
    data.import_set,
    runs.train,
    runs.ensemble,
    runs.adopt,
    runs.evaluate,
    runs.compare,
    view.view,
    submissions.predict,
    submissions.validate,
    submissions.submit,
    submissions.submissions,
    Collection("kernel", kernel.push, kernel.status, kernel.pull),
    project.demo,
    project.bench,
    project.knobs,
    project.test,
    project.lint,
)


def __getattr__(name: str) -> Collection:
    """``ns``, for which Invoke looks before ``namespace`` when it has read a command line."""
    if name != "ns":
        raise AttributeError(name)
    return start.begin(namespace)
