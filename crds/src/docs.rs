//! What is generated from the API types: one manifest per kind, and the reference page.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use std::fmt::Write;

use crate::crds;

const HEADER: &str = "# Generated from the types in crds/src by `make generate`. Do not edit.\n";

/// Every generated file: its path from the root of the repository, and its text.
///
/// # Errors
/// When a definition cannot be written as YAML.
pub fn generated() -> Result<Vec<(String, String)>, serde_saphyr::ser::Error> {
    let mut files = vec![("docs/api.md".to_owned(), reference())];
    for crd in crds() {
        let text = format!("{HEADER}{}", serde_saphyr::to_string(&crd)?);
        files.push((format!("crds/manifests/{}.yaml", crd.spec.names.plural), text));
    }
    Ok(files)
}

/// The reference page: each kind with its fields.
fn reference() -> String {
    let mut page = String::from(
        "<!-- Generated from the types in crds/src by `make generate`. Do not edit. -->\n# API reference\n\nGroup `firebreak.dev`, version `v1alpha1`. The same text as `kubectl explain`.\n",
    );
    for crd in crds() {
        kind(&mut page, &crd);
    }
    page
}

fn kind(page: &mut String, crd: &CustomResourceDefinition) {
    let names = &crd.spec.names;
    let short = names.short_names.clone().unwrap_or_default().join(", ");
    let _ = write!(page, "\n## {}\n\n`{}` (short: `{short}`), {}.", names.kind, names.plural, crd.spec.scope.to_lowercase());
    let schema = crd.spec.versions[0].schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
    let Some(schema) = schema else { return };
    let _ = writeln!(page, " {}\n", schema.description.clone().unwrap_or_default());
    for part in ["spec", "status"] {
        let Some(part_schema) = schema.properties.as_ref().and_then(|p| p.get(part)) else { continue };
        page.push_str("| field | type | what it is |\n| --- | --- | --- |\n");
        fields(page, part, part_schema);
        page.push('\n');
    }
}

fn fields(page: &mut String, path: &str, schema: &JSONSchemaProps) {
    let required = schema.required.clone().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let mark = if required.contains(name) { " **required**" } else { "" };
        let text = field.description.clone().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(page, "| `{path}` | {}{mark} | {text} |", type_of(field));
        // What Kubernetes defines is described there: https://kubernetes.io/docs/reference/kubernetes-api/
        if ["conditions", "allowedNamespaces"].contains(&name.as_str()) {
            continue;
        }
        fields(page, &path, field);
        if let Some(JSONSchemaPropsOrArray::Schema(item)) = &field.items {
            fields(page, &format!("{path}[]"), item);
        }
    }
}

fn type_of(field: &JSONSchemaProps) -> String {
    let kind = match &field.enum_ {
        Some(values) => values.iter().filter_map(|v| v.0.as_str()).map(|v| format!("`{v}`")).collect::<Vec<_>>().join(" "),
        None => field.format.clone().or_else(|| field.type_.clone()).unwrap_or_default(),
    };
    match field.default.as_ref().and_then(|d| d.0.as_str()).filter(|d| !d.is_empty()) {
        Some(default) => format!("{kind}, default `{default}`"),
        None => kind,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_committed_files_are_what_the_types_say() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (path, text) in super::generated().unwrap() {
            let committed = std::fs::read_to_string(root.join(&path)).unwrap_or_default();
            assert!(committed == text, "{path} is stale: run `make generate`");
        }
    }
}
