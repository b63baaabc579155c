defmodule SnakepitWorker.DocsTest do
  @moduledoc "The Elixir in `docs` is Elixir, and the configuration there would start the worker."

  use ExUnit.Case, async: true

  alias SnakepitWorker.HostAdapter

  @docs Path.expand("../../../docs", __DIR__)
  @elixir ~r/^```elixir\n(.*?)^```$/ms
  @pages for page <- ["elixir.md", "dspy.md"],
             text = File.read!(Path.join(@docs, page)),
             into: %{},
             do: {page, @elixir |> Regex.scan(text, capture: :all_but_first) |> List.flatten()}
  @blocks @pages["elixir.md"]
  # What needs SnakeBridge, or the application of the text, cannot be evaluated here.
  @configs for "import Config\n" <> _ = block <- @blocks,
               not (block =~ ~r/SnakeBridge|app_dir/),
               do: block

  for {page, blocks} <- @pages do
    test "it is well formed in #{page}" do
      blocks = unquote(blocks)
      assert length(blocks) > 8
      for block <- blocks, do: assert("#{Code.format_string!(block)}\n" == block)
    end
  end

  test "the arguments of every pool start the worker" do
    assert length(@configs) >= 4

    for block <- @configs do
      config = Config.Reader.eval!("config/config.exs", block)[:snakepit]
      for pool <- config[:pools] || [], do: assert_starts(pool, config)
    end
  end

  test "where they are written out they are what the function gives" do
    words = Enum.map_join(HostAdapter.args([]), ",\\s+", &Regex.escape(inspect(&1)))

    for block <- @blocks, block =~ "adapter_args: [\n" do
      assert block =~ ~r/adapter_args: \[\s+#{words}/
    end
  end

  defp assert_starts(%{worker_profile: :thread} = pool, config) do
    assert config[:python_executable] =~ ~r"/snakepit-python$"
    pairs = Enum.chunk_every(pool.adapter_args, 2)
    assert Enum.all?(pairs, &match?(["--" <> _, _], &1))
    assert pairs == Enum.uniq_by(pairs, &hd/1)
    refute "-m" in pool.adapter_args
  end

  defp assert_starts(pool, config) do
    refute Enum.any?(pool.adapter_args, &(&1 =~ "--max-workers"))

    case pool[:adapter_module] || config[:adapter_module] do
      HostAdapter -> assert List.starts_with?(pool.adapter_args, HostAdapter.args([]))
      _stock -> assert config[:python_executable] =~ ~r"/snakepit-python$"
    end
  end
end
