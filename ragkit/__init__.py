"""ragkit: retrieve, rerank, prune and ground - the part of a RAG system between its corpus and its language model.

Everything public is importable from here and is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragkit.bulk.cluster import RayCluster as RayCluster
    from ragkit.bulk.index import bulk_index as bulk_index
    from ragkit.bulk.questions import ground_many as ground_many
    from ragkit.bulk.questions import retrieve_many as retrieve_many
    from ragkit.bulk.workers import Processes as Processes
    from ragkit.chains.adaptive import WideningPipeline as WideningPipeline
    from ragkit.chains.adaptive_conversation import AdaptiveConversation as AdaptiveConversation
    from ragkit.chains.answer import Answer as Answer
    from ragkit.chains.answer import extractive_answer as extractive_answer
    from ragkit.chains.answerer import GroundedAnswerer as GroundedAnswerer
    from ragkit.chains.confidence import Calibration as Calibration
    from ragkit.chains.confidence import calibrate as calibrate
    from ragkit.chains.confidence import calibration_for as calibration_for
    from ragkit.chains.context import Citation as Citation
    from ragkit.chains.context import GroundedContext as GroundedContext
    from ragkit.chains.conversation import Conversation as Conversation
    from ragkit.chains.conversation import Turn as Turn
    from ragkit.chains.feedback import FeedbackLog as FeedbackLog
    from ragkit.chains.folder import open_folder as open_folder
    from ragkit.chains.margin_answerer import MarginAnswerer as MarginAnswerer
    from ragkit.chains.margin_notes import MarginNote as MarginNote
    from ragkit.chains.margins import MarginReader as MarginReader
    from ragkit.chains.needs import Known as Known
    from ragkit.chains.needs import SmallTalk as SmallTalk
    from ragkit.chains.pipeline import Pipeline as Pipeline
    from ragkit.chains.structured import structured as structured
    from ragkit.documents.provenance import Provenance as Provenance
    from ragkit.documents.provenance import provenance as provenance
    from ragkit.encoders.dense import DenseEncoder as DenseEncoder
    from ragkit.encoders.kept import KeptEncoder as KeptEncoder
    from ragkit.encoders.langchain import EmbeddingsEncoder as EmbeddingsEncoder
    from ragkit.encoders.multi_vector import ColBERTEncoder as ColBERTEncoder
    from ragkit.encoders.sparse import SparseEncoder as SparseEncoder
    from ragkit.engines.opening import create_store as create_store
    from ragkit.engines.opening import open_or_create as open_or_create
    from ragkit.engines.opening import open_store as open_store
    from ragkit.errors import InputError as InputError
    from ragkit.errors import RagkitError as RagkitError
    from ragkit.errors import StoreError as StoreError
    from ragkit.provence.model import ProvenceModel as ProvenceModel
    from ragkit.pruners.extractive import ExtractivePruner as ExtractivePruner
    from ragkit.pruners.maxsim import MaxSimPruner as MaxSimPruner
    from ragkit.pruners.provence import ProvencePruner as ProvencePruner
    from ragkit.rerankers.blend import BlendReranker as BlendReranker
    from ragkit.rerankers.boosts import BoostReranker as BoostReranker
    from ragkit.rerankers.cascade import CascadeReranker as CascadeReranker
    from ragkit.rerankers.consensus import ConsensusReranker as ConsensusReranker
    from ragkit.rerankers.cross_encoder import CrossEncoderReranker as CrossEncoderReranker
    from ragkit.rerankers.duplicates import DuplicateReranker as DuplicateReranker
    from ragkit.rerankers.listwise import ListwiseReranker as ListwiseReranker
    from ragkit.rerankers.maxsim import MaxSimReranker as MaxSimReranker
    from ragkit.rerankers.pairwise import PairwiseReranker as PairwiseReranker
    from ragkit.rerankers.pointwise import PointwiseReranker as PointwiseReranker
    from ragkit.rerankers.provence import ProvenceReranker as ProvenceReranker
    from ragkit.rerankers.setwise import SetwiseReranker as SetwiseReranker
    from ragkit.rerankers.source_cap import SourceCapReranker as SourceCapReranker
    from ragkit.rerankers.tournament import TournamentReranker as TournamentReranker
    from ragkit.retrievers.bm25 import BM25Retriever as BM25Retriever
    from ragkit.retrievers.decomposition import DecompositionRetriever as DecompositionRetriever
    from ragkit.retrievers.dense import DenseRetriever as DenseRetriever
    from ragkit.retrievers.documents import DocumentContextRetriever as DocumentContextRetriever
    from ragkit.retrievers.documents import DocumentRetriever as DocumentRetriever
    from ragkit.retrievers.exact import ExactRetriever as ExactRetriever
    from ragkit.retrievers.expansion import HydeRetriever as HydeRetriever
    from ragkit.retrievers.expansion import MultiQueryRetriever as MultiQueryRetriever
    from ragkit.retrievers.expansion import StepBackRetriever as StepBackRetriever
    from ragkit.retrievers.fast_forward import FastForwardRetriever as FastForwardRetriever
    from ragkit.retrievers.feedback import RM3Retriever as RM3Retriever
    from ragkit.retrievers.feedback import RocchioRetriever as RocchioRetriever
    from ragkit.retrievers.fused import FusedRetriever as FusedRetriever
    from ragkit.retrievers.hybrid import HybridRetriever as HybridRetriever
    from ragkit.retrievers.late_interaction import LateInteractionRetriever as LateInteractionRetriever
    from ragkit.retrievers.learned_fusion import LearnedFusionRetriever as LearnedFusionRetriever
    from ragkit.retrievers.learned_fusion import fit_fusion as fit_fusion
    from ragkit.retrievers.long_units import LongUnitRetriever as LongUnitRetriever
    from ragkit.retrievers.multi_hop import MultiHopRetriever as MultiHopRetriever
    from ragkit.retrievers.propositions import PropositionEncoder as PropositionEncoder
    from ragkit.retrievers.sparse import SparseRetriever as SparseRetriever
    from ragkit.retrievers.typos import TypoTolerantRetriever as TypoTolerantRetriever
    from ragkit.retrievers.units import UnitRetriever as UnitRetriever
    from ragkit.retrievers.vector_store import VectorStoreRetriever as VectorStoreRetriever
    from ragkit.retrievers.vector_store import WrappedRetriever as WrappedRetriever
    from ragkit.store.indexer import index_paths as index_paths
    from ragkit.store.store import Store as Store
    from ragkit.store.store import bm25_and_dense as bm25_and_dense

_HOMES = {
    "AdaptiveConversation": "ragkit.chains.adaptive_conversation",
    "Answer": "ragkit.chains.answer",
    "BM25Retriever": "ragkit.retrievers.bm25",
    "BlendReranker": "ragkit.rerankers.blend",
    "BoostReranker": "ragkit.rerankers.boosts",
    "Calibration": "ragkit.chains.confidence",
    "CascadeReranker": "ragkit.rerankers.cascade",
    "Citation": "ragkit.chains.context",
    "ColBERTEncoder": "ragkit.encoders.multi_vector",
    "ConsensusReranker": "ragkit.rerankers.consensus",
    "Conversation": "ragkit.chains.conversation",
    "CrossEncoderReranker": "ragkit.rerankers.cross_encoder",
    "DecompositionRetriever": "ragkit.retrievers.decomposition",
    "DenseEncoder": "ragkit.encoders.dense",
    "DenseRetriever": "ragkit.retrievers.dense",
    "DocumentContextRetriever": "ragkit.retrievers.documents",
    "DocumentRetriever": "ragkit.retrievers.documents",
    "DuplicateReranker": "ragkit.rerankers.duplicates",
    "EmbeddingsEncoder": "ragkit.encoders.langchain",
    "ExactRetriever": "ragkit.retrievers.exact",
    "ExtractivePruner": "ragkit.pruners.extractive",
    "FastForwardRetriever": "ragkit.retrievers.fast_forward",
    "FeedbackLog": "ragkit.chains.feedback",
    "FusedRetriever": "ragkit.retrievers.fused",
    "GroundedAnswerer": "ragkit.chains.answerer",
    "GroundedContext": "ragkit.chains.context",
    "HybridRetriever": "ragkit.retrievers.hybrid",
    "HydeRetriever": "ragkit.retrievers.expansion",
    "InputError": "ragkit.errors",
    "KeptEncoder": "ragkit.encoders.kept",
    "Known": "ragkit.chains.needs",
    "LateInteractionRetriever": "ragkit.retrievers.late_interaction",
    "LearnedFusionRetriever": "ragkit.retrievers.learned_fusion",
    "ListwiseReranker": "ragkit.rerankers.listwise",
    "LongUnitRetriever": "ragkit.retrievers.long_units",
    "MarginAnswerer": "ragkit.chains.margin_answerer",
    "MarginNote": "ragkit.chains.margin_notes",
    "MarginReader": "ragkit.chains.margins",
    "MaxSimPruner": "ragkit.pruners.maxsim",
    "MaxSimReranker": "ragkit.rerankers.maxsim",
    "MultiHopRetriever": "ragkit.retrievers.multi_hop",
    "MultiQueryRetriever": "ragkit.retrievers.expansion",
    "PairwiseReranker": "ragkit.rerankers.pairwise",
    "Pipeline": "ragkit.chains.pipeline",
    "PointwiseReranker": "ragkit.rerankers.pointwise",
    "Processes": "ragkit.bulk.workers",
    "PropositionEncoder": "ragkit.retrievers.propositions",
    "Provenance": "ragkit.documents.provenance",
    "ProvenceModel": "ragkit.provence.model",
    "ProvencePruner": "ragkit.pruners.provence",
    "ProvenceReranker": "ragkit.rerankers.provence",
    "RM3Retriever": "ragkit.retrievers.feedback",
    "RagkitError": "ragkit.errors",
    "RayCluster": "ragkit.bulk.cluster",
    "RocchioRetriever": "ragkit.retrievers.feedback",
    "SetwiseReranker": "ragkit.rerankers.setwise",
    "SmallTalk": "ragkit.chains.needs",
    "SourceCapReranker": "ragkit.rerankers.source_cap",
    "SparseEncoder": "ragkit.encoders.sparse",
    "SparseRetriever": "ragkit.retrievers.sparse",
    "StepBackRetriever": "ragkit.retrievers.expansion",
    "Store": "ragkit.store.store",
    "StoreError": "ragkit.errors",
    "TournamentReranker": "ragkit.rerankers.tournament",
    "Turn": "ragkit.chains.conversation",
    "TypoTolerantRetriever": "ragkit.retrievers.typos",
    "UnitRetriever": "ragkit.retrievers.units",
    "VectorStoreRetriever": "ragkit.retrievers.vector_store",
    "WideningPipeline": "ragkit.chains.adaptive",
    "WrappedRetriever": "ragkit.retrievers.vector_store",
    "bm25_and_dense": "ragkit.store.store",
    "bulk_index": "ragkit.bulk.index",
    "calibrate": "ragkit.chains.confidence",
    "calibration_for": "ragkit.chains.confidence",
    "create_store": "ragkit.engines.opening",
    "extractive_answer": "ragkit.chains.answer",
    "fit_fusion": "ragkit.retrievers.learned_fusion",
    "ground_many": "ragkit.bulk.questions",
    "index_paths": "ragkit.store.indexer",
    "open_folder": "ragkit.chains.folder",
    "open_or_create": "ragkit.engines.opening",
    "open_store": "ragkit.engines.opening",
    "provenance": "ragkit.documents.provenance",
    "retrieve_many": "ragkit.bulk.questions",
    "structured": "ragkit.chains.structured",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ragkit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
