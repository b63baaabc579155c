defmodule SnakepitWorker.MixProject do
  use Mix.Project

  def project do
    [
      app: :snakepit_worker_elixir,
      version: "0.1.0",
      # What Debian 12 has is enough for the tests. Snakepit itself asks for 1.18.
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(Mix.env()),
      deps: deps(Mix.env())
    ]
  end

  def application, do: []

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]

  # The tests bring stand-ins for Snakepit's modules, and so run without a network and without Hex.
  # `only: [:dev, :prod]` would not do: Mix wants Hex for every Hex package that it reads here, even
  # for those that it then leaves out. As a dependency of an application this project is compiled in
  # the environment :prod, whatever the application's own is.
  defp deps(:test), do: []
  defp deps(_env), do: [{:snakepit, "~> 0.13.0"}]
end
