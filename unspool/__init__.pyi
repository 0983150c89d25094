# The names of unspool.config.component_names.PUBLIC_NAMES, for type checkers.
from unspool.eval_training import multi_task_training_curves as multi_task_training_curves
from unspool.eval_training import single_task_training_curves as single_task_training_curves
from unspool.experiment import Experiment as Experiment
from unspool.exported import load_exported as load_exported
from unspool.learned_optimizers.base import LearnableAdam as LearnableAdam
from unspool.learned_optimizers.base import LearnableSGD as LearnableSGD
from unspool.learned_optimizers.base import LearnableSGDM as LearnableSGDM
from unspool.learned_optimizers.base import LearnedOptimizer as LearnedOptimizer
from unspool.learned_optimizers.base import learned_optimizer_from_opt as learned_optimizer_from_opt
from unspool.learned_optimizers.mlp_lopt import MLPLOpt as MLPLOpt
from unspool.optimizers.base import SGD as SGD
from unspool.optimizers.base import SGDM as SGDM
from unspool.optimizers.base import Adam as Adam
from unspool.optimizers.base import AdamW as AdamW
from unspool.optimizers.base import GradientClipOptimizer as GradientClipOptimizer
from unspool.optimizers.base import NAdamW as NAdamW
from unspool.optimizers.base import OptaxOptimizer as OptaxOptimizer
from unspool.optimizers.base import Optimizer as Optimizer
from unspool.optimizers.base import RMSProp as RMSProp
from unspool.optimizers.base import opt_to_optax_opt as opt_to_optax_opt
from unspool.outer_trainers.dodge import DODGE as DODGE
from unspool.outer_trainers.full_es import FullES as FullES
from unspool.outer_trainers.full_grad import FullGrad as FullGrad
from unspool.outer_trainers.gpes import GPES as GPES
from unspool.outer_trainers.gradient_learner import GradientEstimator as GradientEstimator
from unspool.outer_trainers.gradient_learner import GradientEstimatorOut as GradientEstimatorOut
from unspool.outer_trainers.gradient_learner import GradientLearner as GradientLearner
from unspool.outer_trainers.gradient_learner import OuterState as OuterState
from unspool.outer_trainers.gradient_learner import (
    SingleMachineGradientLearner as SingleMachineGradientLearner,
)
from unspool.outer_trainers.gradient_learner import WorkerWeights as WorkerWeights
from unspool.outer_trainers.lopt_truncated_step import (
    VectorizedLOptTruncatedStep as VectorizedLOptTruncatedStep,
)
from unspool.outer_trainers.truncated_es import TruncatedES as TruncatedES
from unspool.outer_trainers.truncated_es_shared_noise import NRES as NRES
from unspool.outer_trainers.truncated_es_shared_noise import ESSingle as ESSingle
from unspool.outer_trainers.truncated_es_shared_noise import TruncatedESSharedNoise as TruncatedESSharedNoise
from unspool.outer_trainers.truncated_grad import TruncatedGrad as TruncatedGrad
from unspool.outer_trainers.truncated_pes import TruncatedPES as TruncatedPES
from unspool.outer_trainers.truncated_step import TruncatedStep as TruncatedStep
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut as TruncatedUnrollOut
from unspool.outer_trainers.truncated_step import VectorizedStep as VectorizedStep
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep as VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule as ConstantTruncationSchedule,
)
from unspool.outer_trainers.truncation_schedule import LogUniformLengthSchedule as LogUniformLengthSchedule
from unspool.outer_trainers.truncation_schedule import (
    NeverEndingTruncationSchedule as NeverEndingTruncationSchedule,
)
from unspool.outer_trainers.truncation_schedule import (
    ScheduledTruncationSchedule as ScheduledTruncationSchedule,
)
from unspool.outer_trainers.truncation_schedule import TruncationSchedule as TruncationSchedule
from unspool.systems.influence_balancing import InfluenceBalancing as InfluenceBalancing
from unspool.systems.learning_rate_ramp import LearningRateRamp as LearningRateRamp
from unspool.systems.lorenz import LorenzFit as LorenzFit
from unspool.systems.pendulum import PendulumSwingUp as PendulumSwingUp
from unspool.tasks.base import Task as Task
from unspool.tasks.base import TaskFamily as TaskFamily
from unspool.tasks.base import single_task_to_family as single_task_to_family
from unspool.tasks.datasets.base import Datasets as Datasets
from unspool.tasks.datasets.base import Split as Split
from unspool.tasks.fixed.image_mlp import ImageMLP_Digits8_Relu32 as ImageMLP_Digits8_Relu32
from unspool.tasks.fixed.image_mlp import ImageMLP_FashionMnist8_Relu32 as ImageMLP_FashionMnist8_Relu32
from unspool.tasks.quadratics import BatchQuadraticTask as BatchQuadraticTask
from unspool.tasks.quadratics import FixedDimQuadraticFamily as FixedDimQuadraticFamily
from unspool.tasks.quadratics import FixedDimQuadraticFamilyData as FixedDimQuadraticFamilyData
from unspool.tasks.quadratics import LogQuadraticTask as LogQuadraticTask
from unspool.tasks.quadratics import NoisyMeanQuadraticTask as NoisyMeanQuadraticTask
from unspool.tasks.quadratics import NoisyQuadraticFamily as NoisyQuadraticFamily
from unspool.tasks.quadratics import QuadraticTask as QuadraticTask
from unspool.tasks.quadratics import SumQuadraticTask as SumQuadraticTask
