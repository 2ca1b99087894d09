// JSON as the Manifest uses it (docs/manifest.md, 2.1): integers and text only, no duplicate keys, one canonical form.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace json {

struct Malformed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Value {
  enum Kind { Integer, Text, List, Object, Other } kind = Other;  // Other: true, false, null
  std::int64_t number = 0;
  std::string text;
  std::vector<Value> list;
  std::map<std::string, Value> object;  // std::string compares by bytes, as the format orders keys
};

class Parser {
 public:
  explicit Parser(std::string_view bytes) : in(bytes) {}

  Value document() {
    Value value = parse(0);
    space();
    if (at != in.size()) fail("bytes after the document");
    return value;
  }

 private:
  std::string_view in;
  std::size_t at = 0;
  static constexpr int kMaxDepth = 64;  // the schema ends at five levels

  [[noreturn]] void fail(const std::string& what) const {
    throw Malformed(what + " at byte " + std::to_string(at));
  }
  char peek() const { return at < in.size() ? in[at] : '\0'; }
  void space() {
    while (at < in.size() && (in[at] == ' ' || in[at] == '\n' || in[at] == '\r' || in[at] == '\t')) ++at;
  }
  bool take(char c) {
    space();
    if (at >= in.size() || in[at] != c) return false;
    ++at;
    return true;
  }
  void need(char c) {
    if (!take(c)) fail(std::string("expected ") + c);
  }

  Value parse(int depth) {
    if (depth > kMaxDepth) fail("nested too deeply");
    space();
    Value value;
    switch (peek()) {
      case '{': return object(depth);
      case '[': return list(depth);
      case '"':
        value.kind = Value::Text;
        value.text = text();
        return value;
      case 't': return word("true");
      case 'f': return word("false");
      case 'n': return word("null");
      default: return integer();
    }
  }

  Value word(std::string_view expected) {
    if (in.substr(at, expected.size()) != expected) fail("not a value");
    at += expected.size();
    return Value{};
  }

  Value object(int depth) {
    Value value;
    value.kind = Value::Object;
    need('{');
    if (take('}')) return value;
    do {
      space();
      if (peek() != '"') fail("expected a key");
      std::string key = text();
      need(':');
      if (!value.object.emplace(key, parse(depth + 1)).second) fail("a key is there twice");
    } while (take(','));
    need('}');
    return value;
  }

  Value list(int depth) {
    Value value;
    value.kind = Value::List;
    need('[');
    if (take(']')) return value;
    do value.list.push_back(parse(depth + 1));
    while (take(','));
    need(']');
    return value;
  }

  Value integer() {
    const std::size_t start = at;
    if (peek() == '-') ++at;
    const std::size_t digits = at;
    while (at < in.size() && in[at] >= '0' && in[at] <= '9') ++at;
    if (at == digits) fail("not a value");
    if (in[digits] == '0' && at - digits > 1) fail("a number with a leading zero");
    if (peek() == '.' || peek() == 'e' || peek() == 'E') fail("not a whole number");
    if (at - start > 17) fail("a number with too many digits");
    Value value;
    value.kind = Value::Integer;
    value.number = std::stoll(std::string(in.substr(start, at - start)));
    return value;
  }

  std::string text() {
    std::string out;
    ++at;  // the opening quote
    for (;;) {
      if (at >= in.size()) fail("a text without end");
      const unsigned char c = static_cast<unsigned char>(in[at]);
      if (c == '"') break;
      if (c < 0x20) fail("a control character in a text");
      if (c == '\\')
        escape(out);
      else if (c < 0x80)
        out += in[at++];
      else
        utf8(out);
    }
    ++at;
    return out;
  }

  void escape(std::string& out) {
    static const std::map<char, char> kShort{{'"', '"'},  {'\\', '\\'}, {'/', '/'},  {'b', '\b'},
                                             {'f', '\f'}, {'n', '\n'},  {'r', '\r'}, {'t', '\t'}};
    if (++at >= in.size()) fail("a text without end");
    if (in[at] != 'u') {
      const auto found = kShort.find(in[at]);
      if (found == kShort.end()) fail("an unknown escape");
      out += found->second;
      ++at;
      return;
    }
    ++at;
    // No canonical form has such an escape, so its bytes are refused in any case; a surrogate only has to pass here.
    const std::uint32_t code = hex4();
    append(out, code >= 0xD800 && code <= 0xDFFF ? 0xFFFD : code);
  }

  std::uint32_t hex4() {
    std::uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) fail("a bad \\u escape");
      code = code * 16 + static_cast<std::uint32_t>(digit);
    }
    return code;
  }

  static void append(std::string& out, std::uint32_t code) {
    const auto byte = [&out](std::uint32_t value) { out += static_cast<char>(value); };
    if (code < 0x80) {
      byte(code);
    } else if (code < 0x800) {
      byte(0xC0 | code >> 6), byte(0x80 | (code & 0x3F));
    } else {
      byte(0xE0 | code >> 12), byte(0x80 | (code >> 6 & 0x3F)), byte(0x80 | (code & 0x3F));
    }
  }

  // One character of two to four bytes: shortest form, no surrogate, not above U+10FFFF.
  void utf8(std::string& out) {
    const unsigned char first = static_cast<unsigned char>(in[at]);
    const int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
    if (first < 0xC2 || first > 0xF4) fail("not UTF-8");
    std::uint32_t code = first & (0x3Fu >> more);
    for (int i = 1; i <= more; ++i) {
      if (at + static_cast<std::size_t>(i) >= in.size()) fail("not UTF-8");
      const unsigned char next = static_cast<unsigned char>(in[at + static_cast<std::size_t>(i)]);
      if ((next & 0xC0) != 0x80) fail("not UTF-8");
      code = code << 6 | (next & 0x3Fu);
    }
    if ((more == 2 && code < 0x800) || (more == 3 && (code < 0x10000 || code > 0x10FFFF)) ||
        (code >= 0xD800 && code <= 0xDFFF))
      fail("not UTF-8");
    out += in.substr(at, static_cast<std::size_t>(more) + 1);
    at += static_cast<std::size_t>(more) + 1;
  }
};

inline void write_text(std::string& out, const std::string& text) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  out += '"';
}

// The canonical form of what the schema allows; lists are written as they are, their order is checked elsewhere.
inline void write(std::string& out, const Value& value, std::size_t indent = 0) {
  const std::string deeper = "\n" + std::string(indent + 2, ' '), back = "\n" + std::string(indent, ' ');
  bool first = true;
  switch (value.kind) {
    case Value::Integer: out += std::to_string(value.number); break;
    case Value::Text: write_text(out, value.text); break;
    case Value::List:
      if (value.list.empty()) {
        out += "[]";
        break;
      }
      for (const Value& item : value.list) {
        out += (first ? "[" : ",") + deeper;
        write(out, item, indent + 2);
        first = false;
      }
      out += back + "]";
      break;
    case Value::Object:
      if (value.object.empty()) {
        out += "{}";
        break;
      }
      for (const auto& [key, item] : value.object) {
        out += (first ? "{" : ",") + deeper;
        write_text(out, key);
        out += ": ";
        write(out, item, indent + 2);
        first = false;
      }
      out += back + "}";
      break;
    case Value::Other: out += "null"; break;
  }
  if (indent == 0) out += "\n";
}

}  // namespace json
