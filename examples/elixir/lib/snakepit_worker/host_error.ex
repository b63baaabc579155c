defmodule SnakepitWorker.HostError do
  @moduledoc """
  Raised by `SnakepitWorker.call!/3` when Snakepit has no answer from a worker.

  `:error` holds the `Snakepit.Error`, which is no exception and so cannot be raised itself.
  """

  defexception [:error]

  @type t :: %__MODULE__{error: Snakepit.Error.t()}

  @impl true
  def message(%{error: %Snakepit.Error{details: %{reason: reason}} = error}) do
    "#{error.message} (#{error.category}): #{inspect(reason)}"
  end

  def message(%{error: %Snakepit.Error{} = error}), do: "#{error.message} (#{error.category})"
  def message(%{error: error}), do: inspect(error)
end
