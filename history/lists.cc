// What the accesses to lists tell. A read of a list shows the order of all versions up to the one it saw, so the
// longest read of a key gives the order of its versions, and every other read must be a beginning of it.
#include <unordered_set>

#include "history/explain.h"
#include "history/findings.h"

namespace kelda::history {

namespace {

class ListCheck {
 public:
  ListCheck(const HistoryIndex& index, Findings& findings, Facts& facts)
      : index_(index),
        findings_(findings),
        facts_(facts),
        orders_(index.keys().size()),
        views_(index.keys().size()),
        in_order_(index.versions().size(), false) {}

  void run() {
    const auto& transactions = index_.history().transactions;
    for (txn_ = 0; txn_ < transactions.size(); ++txn_) {
      if (!index_.counts(txn_)) continue;
      const auto& ops = transactions[txn_].ops;
      for (op_ = 0; op_ < ops.size(); ++op_) {
        if (!ops[op_].of_list()) continue;
        key_ = index_.key_of(ops[op_]);
        if (views_[key_].txn != txn_) views_[key_] = View{txn_};
        ops[op_].writes() ? append(ops[op_]) : read(ops[op_]);
      }
    }
    for (KeyIndex key = 0; key < orders_.size(); ++key) add_successions(key);
  }

 private:
  // What a transaction knows of a key so far.
  struct View {
    TxnIndex txn = kNone;
    const Op* last_read = nullptr;
    VersionIndex read_version = kNone;
    std::vector<Value> appended = {};  // since then
    bool has_appended = false;
  };
  // A key's order as far as it is known.
  struct KeyOrder {
    const Op* longest = nullptr;
    TxnIndex reader = kNone;
    std::vector<VersionIndex> versions = {};   // of `longest`, without what was aborted or never written
    std::vector<VersionIndex> newest_at = {};  // by position in `longest`: the newest such version up to there
    std::unordered_set<VersionIndex> present = {};
    bool contradicted = false;
  };

  template <class... More>
  void report(Anomaly anomaly, const std::string& what, More... others) {
    const std::vector<TxnIndex> concerned{others..., txn_};
    findings_.add(anomaly, Order::kData, concerned, [&] { return describe(index_, what, concerned); });
  }
  std::string key_name() const { return describe_key(index_.keys()[key_].name); }

  void append(const Op& op) {
    View& view = views_[key_];
    if (view.last_read != nullptr &&
        std::ranges::find(view.last_read->values, op.values[0]) != view.last_read->values.end()) {
      report(Anomaly::kInternal, key_name() + " was read with a value that the same transaction appended later");
    }
    if (view.read_version != kNone && !view.has_appended) facts_.replaced.push_back({view.read_version, txn_, op_});
    view.appended.push_back(op.values[0]);
    view.has_appended = true;
  }

  void read(const Op& op) {
    check_own(op);
    const VersionIndex newest = place(op);
    const Version& version = index_.version(newest);
    View& view = views_[key_];
    if (version.writer != txn_) {
      facts_.reads.push_back({newest, txn_, op_});
      if (!version.last_of_writer) {
        report(Anomaly::kG1b,
               "T" + std::to_string(txn_) + " read an intermediate state: " + describe_version(index_, newest) +
                   " was not its writer's last",
               version.writer);
      }
    }
    if (!view.has_appended && view.read_version == kNone) view.read_version = newest;
    view.last_read = &op;
    view.appended.clear();
  }

  // Does the read agree with what the transaction itself did before?
  void check_own(const Op& op) {
    const View& view = views_[key_];
    const std::size_t own = view.appended.size();
    const bool ends_well =
        op.values.size() >= own && std::equal(view.appended.begin(), view.appended.end(), op.values.end() - own);
    const bool begins_well = view.last_read == nullptr || (op.values.size() == view.last_read->values.size() + own &&
                                                           is_prefix(view.last_read->values, op.values));
    if (!ends_well || !begins_well) {
      report(Anomaly::kInternal,
             "a read of " + key_name() + " contradicts what the transaction read and appended before");
    }
  }

  // Compares a read with the key's order, which may grow by it. Returns the newest version that was read.
  VersionIndex place(const Op& op) {
    KeyOrder& order = orders_[key_];
    const VersionIndex initial = index_.keys()[key_].initial;
    const bool known = order.longest != nullptr && is_prefix(op.values, order.longest->values);
    if (known) return op.values.empty() ? initial : order.newest_at[op.values.size() - 1];
    if (order.longest == nullptr || is_prefix(order.longest->values, op.values)) {
      extend(order, op, order.longest == nullptr ? 0 : order.longest->values.size());
      return order.newest_at.empty() ? initial : order.newest_at.back();
    }
    KeyOrder other;
    extend(other, op, 0);
    const std::size_t both = std::min(order.versions.size(), other.versions.size());
    const VersionIndex newest = other.newest_at.empty() ? initial : other.newest_at.back();
    if (!std::equal(order.versions.begin(), order.versions.begin() + both, other.versions.begin())) {
      report(Anomaly::kIncompatibleOrder, "two reads of " + key_name() + " order its values differently", order.reader);
      order.contradicted = true;
    } else if (other.versions.size() > order.versions.size()) {
      order = std::move(other);
    }
    return newest;
  }

  // Takes over the values of a read from `position` on.
  void extend(KeyOrder& order, const Op& op, std::size_t position) {
    for (std::size_t i = position; i < op.values.size(); ++i) {
      const VersionIndex v = index_.find(key_, op.values[i]);
      if (v == kNone) {
        report(Anomaly::kGarbageRead,
               key_name() + " was read with " + std::to_string(op.values[i]) + ", which nobody appended");
      } else if (index_.aborted(index_.version(v).writer)) {
        report(Anomaly::kG1a, describe_version(index_, v) + " was read but its writer had aborted",
               index_.version(v).writer);
      } else if (!order.present.insert(v).second) {
        report(Anomaly::kDuplicateElement, key_name() + " was read with " + std::to_string(op.values[i]) + " twice");
      } else {
        if (i > 0) check_predecessor(op.values[i - 1], v);
        order.versions.push_back(v);
      }
      order.newest_at.push_back(order.versions.empty() ? index_.keys()[key_].initial : order.versions.back());
    }
    order.longest = &op;
    order.reader = txn_;
  }

  void check_predecessor(Value value, VersionIndex v) {
    const VersionIndex before = index_.find(key_, value);
    if (before == kNone || !index_.aborted(index_.version(before).writer)) return;
    report(Anomaly::kDirtyWrite, describe_version(index_, v) + " was appended to an aborted value",
           index_.version(before).writer, index_.version(v).writer);
  }

  void add_successions(KeyIndex key) {
    const KeyInfo& info = index_.keys()[key];
    if (!info.is_list) return;
    VersionIndex last = info.initial;
    for (const VersionIndex v : orders_[key].versions) {
      facts_.successions.push_back({last, v, false});
      in_order_[v] = true;
      last = v;
    }
    if (orders_[key].contradicted) return;
    // What was appended and never read comes after all that was.
    for (const VersionIndex v : info.written) {
      if (!in_order_[v] && index_.counts(index_.version(v).writer)) facts_.successions.push_back({last, v, false});
    }
  }

  const HistoryIndex& index_;
  Findings& findings_;
  Facts& facts_;
  std::vector<KeyOrder> orders_;  // by key
  std::vector<View> views_;       // by key
  std::vector<bool> in_order_;    // by version
  TxnIndex txn_ = 0;
  std::uint32_t op_ = 0;
  KeyIndex key_ = 0;
};

}  // namespace

void check_lists(const HistoryIndex& index, Findings& findings, Facts& facts) {
  ListCheck(index, findings, facts).run();
}

}  // namespace kelda::history
