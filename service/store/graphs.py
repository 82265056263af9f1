"""Queries about the graphs of checkpoints."""

from sqlalchemy import delete
from sqlalchemy.orm import Session

from service.store.tables import Graph


def of(session: Session, checkpoint_id: str) -> Graph | None:
    """The graph of a checkpoint, or None."""
    return session.get(Graph, checkpoint_id)


def put(session: Session, graph: Graph) -> None:
    """Adds the graph of a checkpoint, in place of an earlier one."""
    session.merge(graph)


def discard(session: Session, checkpoint_id: str) -> None:
    """Deletes the graph of a checkpoint, if there is one."""
    session.execute(delete(Graph).where(Graph.checkpoint_id == checkpoint_id))
