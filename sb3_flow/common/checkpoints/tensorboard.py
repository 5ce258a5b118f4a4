"""TensorBoard's files of a resumed run."""

from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat


def hide_later_steps(logger: Logger, timesteps: int) -> None:
    """
    Hide what an interrupted run logged after its last checkpoint, because a resumed run logs these steps again.

    :param logger: The logger of the resumed run, which writes to the same folder
    :param timesteps: The timesteps of the checkpoint
    """
    for output in logger.output_formats:
        if isinstance(output, TensorBoardOutputFormat):
            writer = output.writer
            folder = writer.log_dir
            writer.close()
            output.writer = type(writer)(log_dir=folder, purge_step=timesteps + 1)
