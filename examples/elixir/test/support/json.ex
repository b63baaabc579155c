# Elixir has a module JSON from 1.18 on; Snakepit wants that version. Older ones get as much of it as
# the tests need.
unless Code.ensure_loaded?(JSON) do
  defmodule JSON do
    def decode(text) do
      {value, rest} = value(text)
      "" = blank(rest)
      {:ok, value}
    rescue
      _error in [FunctionClauseError, MatchError, ArgumentError] -> {:error, :not_json}
    end

    defp value(text) do
      case blank(text) do
        "{" <> rest -> rest |> blank() |> members([])
        "[" <> rest -> rest |> blank() |> items([])
        "\"" <> rest -> text(rest, "")
        "true" <> rest -> {true, rest}
        "false" <> rest -> {false, rest}
        "null" <> rest -> {nil, rest}
        other -> number(other)
      end
    end

    defp members("}" <> rest, found), do: {Map.new(found), rest}
    defp members("," <> rest, [_ | _] = found), do: rest |> blank() |> member(found)
    defp members(rest, []), do: member(rest, [])

    defp member("\"" <> rest, found) do
      {name, rest} = text(rest, "")
      ":" <> rest = blank(rest)
      {value, rest} = value(rest)
      rest |> blank() |> members([{name, value} | found])
    end

    defp items("]" <> rest, found), do: {Enum.reverse(found), rest}
    defp items("," <> rest, [_ | _] = found), do: item(rest, found)
    defp items(rest, []), do: item(rest, [])

    defp item(rest, found) do
      {value, rest} = value(rest)
      rest |> blank() |> items([value | found])
    end

    defp text("\"" <> rest, found), do: {found, rest}

    defp text("\\u" <> <<hex::binary-4, rest::binary>>, found),
      do: text(rest, found <> point(hex))

    defp text("\\" <> <<letter, rest::binary>>, found), do: text(rest, found <> escaped(letter))
    defp text(<<char::utf8, rest::binary>>, found), do: text(rest, found <> <<char::utf8>>)

    defp point(hex), do: <<String.to_integer(hex, 16)::utf8>>

    defp escaped(letter) do
      {_letter, char} =
        List.keyfind([{?n, "\n"}, {?t, "\t"}, {?r, "\r"}], letter, 0, {0, <<letter>>})

      char
    end

    defp number(text) do
      [digits] = Regex.run(~r/^-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/, text)
      rest = binary_part(text, byte_size(digits), byte_size(text) - byte_size(digits))
      {number, ""} = if digits =~ ~r/[.eE]/, do: Float.parse(digits), else: Integer.parse(digits)
      {number, rest}
    end

    defp blank(text), do: String.trim_leading(text)
  end
end
